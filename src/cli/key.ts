import { formatCredentials } from '../auth/credentials.ts'
import { rfc3339 } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { type Client, connect } from './client.ts'
import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'
import { apiVersionOf, kindOf, pathOf } from './kinds.ts'
import { durationMs, formatOf } from './options.ts'
import { age, renderObject, renderTable } from './output.ts'
import { similarTo } from './similar.ts'
import type { ListView, ObjectView } from './targets.ts'

interface Options extends GlobalOptions {
  readonly group?: readonly string[]
  readonly expires?: string
  readonly keep?: string
  readonly output?: string
}

interface KeyView extends ObjectView {
  readonly spec?: Readonly<Record<string, unknown>> & {
    readonly user?: string
    readonly groups?: readonly string[]
    readonly expiresAt?: string
    readonly disabled?: boolean
  }
  readonly status?: ObjectView['status'] & {
    readonly lastUsed?: string
    readonly accessKeyId?: string
    readonly secretAccessKey?: string
  }
}

/** What one action works with. */
interface Task {
  readonly client: Client
  readonly words: readonly string[]
  readonly options: Options
  readonly io: Io
}

const kind = kindOf('accesskeys')
const merge = 'application/merge-patch+json'
/** How long a key that is rotated stays good beside the new one, unless told. */
const keepFor = '24h'

const idOf = ({ metadata }: KeyView) => metadata.name.toUpperCase()

function durationWithDays(text: string): number | undefined {
  const [, days] = /^(\d+)d$/.exec(text) ?? []
  try {
    return days === undefined ? durationMs(text) : Number(days) * 86_400_000
  } catch {
    return undefined
  }
}

/** A time to come, RFC 3339: `30d`, `12h`, or what is one already. @throws UsageError */
function timeFrom(option: string, text: string, io: Io): string {
  if (/^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text))) return text
  const advice = 'such as 30d, 12h or 2027-01-01T00:00:00Z'
  const ms = durationWithDays(text)
  if (ms === undefined) throw new UsageError(`${option}: "${text}" is no duration and no time`, advice)
  if (ms > 0 && ms < 1e13) return rfc3339(io.clock.now() + ms)
  throw new UsageError(`${option}: ${text} is no time to come`, advice)
}

/** The one ID of an action, as the path of its key. @throws UsageError */
function keyPath({ words }: Task): string {
  const [id, ...more] = words
  if (id && more.length === 0) return pathOf(kind, undefined, id.toLowerCase())
  throw new UsageError(id ? 'name one key' : 'no key named', "see 'plasmavmc key list'")
}

function make(client: Client, spec: object): Promise<KeyView> {
  const body = { apiVersion: apiVersionOf(kind), kind: kind.kind, metadata: {}, spec }
  return client.json<KeyView>('POST', pathOf(kind), { body })
}

/** Prints a new key as a profile of a credentials file, to be appended to one. */
async function tell(key: KeyView, { options, io }: Task): Promise<void> {
  const format = formatOf(options.output, ['json', 'yaml'])
  const { accessKeyId, secretAccessKey } = key.status ?? {}
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new PlasmaError('BadAnswer', 'the server told no secret', { hint: 'is it of another version?' })
  if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(key, format))
  else io.stdout.write(formatCredentials({ accessKeyId, secretAccessKey }, key.spec?.user))
  io.stderr.write('the secret is shown this once: keep it where only its user can read it\n')
}

async function create(task: Task): Promise<void> {
  const { words, options, io, client } = task
  const [user, ...more] = words
  if (!user || more.length > 0) throw new UsageError('name one user', 'such as: key create alice --group ops')
  const { group: groups = [], expires } = options
  const expiresAt = expires === undefined ? undefined : timeFrom('--expires', expires, io)
  await tell(await make(client, { user, groups, ...(expiresAt && { expiresAt }) }), task)
}

async function list({ client, words, options, io }: Task): Promise<void> {
  if (words.length > 0) throw new UsageError('key list has no operand')
  const format = formatOf(options.output, ['json', 'yaml', 'name'])
  const found = await client.json<ListView<KeyView>>('GET', pathOf(kind))
  if (format === 'json' || format === 'yaml') return void io.stdout.write(await renderObject(found, format))
  if (format === 'name') return void io.stdout.write(found.items.map((key) => `${idOf(key)}\n`).join(''))
  if (found.items.length === 0) return void io.stderr.write('No access keys found\n')
  const now = io.clock.now()
  const since = (time: string | undefined) => (time === undefined ? 'never' : age(now - Date.parse(time)))
  const rows = found.items.map((key) => {
    const { user, groups = [], expiresAt } = key.spec ?? {}
    const { lastUsed } = key.status ?? {}
    const made = since(key.metadata.creationTimestamp)
    return [idOf(key), user, groups.join(','), stateOf(key, now), expiresAt ?? 'never', since(lastUsed), made]
  })
  const columns = ['Id', 'User', 'Groups', 'State', 'Expires', 'Last Used', 'Age']
  io.stdout.write(renderTable({ columns, rows }, { out: io.stdout, env: io.env }).text)
}

function stateOf({ spec, metadata }: KeyView, now: number): string {
  if (metadata.deletionTimestamp) return 'Terminating'
  if (spec?.disabled) return 'Disabled'
  return spec?.expiresAt !== undefined && Date.parse(spec.expiresAt) <= now ? 'Expired' : 'Active'
}

const setDisabled = (disabled: boolean) => async (task: Task) => {
  const body = { spec: { disabled } }
  const key = await task.client.json<KeyView>('PATCH', keyPath(task), { body, contentType: merge })
  task.io.stdout.write(`${idOf(key)} ${disabled ? 'disabled' : 'enabled'}\n`)
}

async function remove(task: Task): Promise<void> {
  await task.client.json('DELETE', keyPath(task))
  task.io.stdout.write(`${task.words[0]?.toUpperCase()} deleted\n`)
}

/** A new key for the same user, with the same end unless told; the old one stays good for a while, so that nobody is locked out meanwhile. */
async function rotate(task: Task): Promise<void> {
  const { client, options, io } = task
  const until = timeFrom('--keep', options.keep ?? keepFor, io)
  const path = keyPath(task)
  const old = await client.json<KeyView>('GET', path)
  const { user, groups = [], expiresAt: before } = old.spec ?? {}
  const expiresAt = options.expires === undefined ? before : timeFrom('--expires', options.expires, io)
  if (expiresAt !== undefined && expiresAt === before && Date.parse(before) <= io.clock.now())
    throw new UsageError(`${idOf(old)} ended at ${before}: so would a new one`, 'give --expires, such as 30d')
  const made = await make(client, { user, groups, ...(expiresAt && { expiresAt }) })
  await tell(made, task)
  if (before !== undefined && Date.parse(before) <= Date.parse(until)) return
  await client.json('PATCH', path, { body: { spec: { expiresAt: until } }, contentType: merge })
  io.stderr.write(`${idOf(old)} is good until ${until}\n`)
}

/** What `key` can do, for completion. */
export const keyActions = ['create', 'list', 'disable', 'enable', 'rotate', 'delete'] as const

const actions: Readonly<Record<(typeof keyActions)[number], (task: Task) => Promise<void>>> = {
  ...{ create, list, rotate, delete: remove },
  ...{ disable: setDisabled(true), enable: setDisabled(false) },
}

const collect = (value: string, before: readonly string[] = []) => [...before, value]

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<action>', 'create, list, disable, enable, rotate or delete')
      .argument('[name]', 'user of a new key; else the id of a key')
      .option('--group <name>', 'group of the user; may be given more than once', collect)
      .option(
        '--expires <time>',
        'when the new key ends, such as 30d; with rotate as the old one does unless given',
      )
      .option('--keep <time>', `how long the old key of a rotation stays good; default ${keepFor}`)
      .option('-o, --output <format>', 'json or yaml'),
  examples: [
    // With the umask of most shells others could read the file, and every command would refuse it.
    '(umask 077; plasmavmc key create alice --expires 30d >> credentials)',
    'key list',
    'key rotate PVMC2A3B4C5D6E7F2345',
  ],
  run: async ({ args: [action = '', ...words], options }, io) => {
    const known = keyActions.find((one) => one === action)
    const run = known && actions[known]
    if (!run) {
      const similar = similarTo(action, Object.keys(actions))
      throw new UsageError(
        `key ${action}: no such action`,
        similar ? `did you mean ${similar}?` : `there are: ${Object.keys(actions).join(', ')}`,
      )
    }
    const client = connect(options, io)
    try {
      await run({ client, words, options, io })
      return 0
    } finally {
      client.close()
    }
  },
}
