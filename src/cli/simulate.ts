import type { Fate } from '../sim/what-if.ts'
import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import type { Invocation, Io } from './io.ts'
import { readManifests } from './manifests.ts'
import { oneOf } from './options.ts'
import { renderTable } from './output.ts'

interface Options {
  readonly seed?: string
  readonly schedules?: string
  readonly filename?: readonly string[]
  readonly kill?: readonly string[]
  readonly log?: boolean
  readonly output?: string
}

function whole(option: string, text: string, least: number): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= least) return value
  throw new UsageError(`${option}: "${text}" is no whole number from ${least} on`)
}

/** Random schedules: prints each thousand, and everything about the first that breaks a rule. */
async function searchFor({ seed = '1', schedules = '10000' }: Options, io: Io): Promise<number> {
  const [first, count] = [whole('--seed', seed, 0), whole('--schedules', schedules, 1)]
  const { report, search } = await import('../sim/search.ts')
  const { product } = await import('../sim/product.ts')
  const began = io.clock.elapsed()
  let played = 0
  const onPlayed = () => {
    played += 1
    if (played % 1_000 === 0) io.stderr.write(`${played} of ${count} schedules, no rule broken\n`)
  }
  const found = await search(first, count, product, { signal: io.signal, onPlayed })
  if (found) {
    io.stdout.write(report(found))
    return 1
  }
  const seconds = ((io.clock.elapsed() - began) / 1_000).toFixed(1)
  io.stdout.write(`${count} schedules from seed ${first} on: every safety rule held (${seconds} s)\n`)
  return 0
}

function cells({ machine, from, to, afterMs, status, message }: Fate): readonly unknown[] {
  const after = afterMs === undefined ? 'no' : `in ${Math.ceil(afterMs / 1_000)} s`
  return [machine, from, afterMs === undefined ? undefined : to, after, status, message]
}

/** What would move where, and what could not. */
async function whatIf(options: Options, io: Io): Promise<number> {
  const { filename = [], kill = [], log = false } = options
  if (kill.length === 0) throw new UsageError('-f needs --kill', 'name the host whose loss is to be played')
  const output = oneOf('--output', options.output ?? 'table', ['table', 'json'])
  const sources = await readManifests(filename, false, io)
  const { dumpOf, whatIf: ask } = await import('../sim/what-if.ts')
  const { product } = await import('../sim/product.ts')
  const tell = (line: string) => void io.stderr.write(`${line}\n`)
  const answer = await ask(
    dumpOf(sources.map(({ manifest }) => manifest)),
    kill,
    product,
    log ? tell : undefined,
  )
  if (output === 'json') {
    io.stdout.write(`${JSON.stringify(answer, null, 2)}\n`)
    return 0
  }
  const { moved, stuck, troubled, untouched } = answer
  const columns = ['Machine', 'From', 'To', 'Runs again', 'Status', 'Message']
  const rows = [...moved, ...stuck].map(cells)
  if (rows.length > 0) io.stdout.write(renderTable({ columns, rows }, { out: io.stdout, wrap: true }).text)
  io.stdout.write(
    `${moved.length} of ${moved.length + stuck.length} machines of ${kill.join(', ')} would run again elsewhere; ${untouched} others are not touched\n`,
  )
  for (const { machine, status, message } of troubled)
    io.stdout.write(`note: ${machine} did not run even before: ${status} ${message}\n`)
  return 0
}

const many = (value: string, before: readonly string[] = []) => [...before, value]

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .option('--seed <n>', 'first seed (default 1)')
      .option('--schedules <n>', 'how many random schedules of faults to play (default 10000)')
      .option('-f, --filename <file>', 'play on the hosts and machines of this dump, repeatable', many)
      .option('--kill <host>', 'with -f: the host that is lost, repeatable', many)
      .option('--log', 'with -f: tell on standard error what happens')
      .option('-o, --output <format>', 'with -f: table (default) or json'),
  examples: [
    'simulate --seed 1 --schedules 10000',
    'simulate -f cluster.yaml --kill host-b',
    'get hosts -o yaml > cluster.yaml',
  ],
  run: ({ options }: Invocation<Options>, io) =>
    options.filename === undefined ? searchFor(options, io) : whatIf(options, io),
}
