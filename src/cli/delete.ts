import { awaitObject } from './await.ts'
import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { isServerError, UsageError } from './failure.ts'
import type { Invocation, Io } from './io.ts'
import { type ClientKind, nameOf, pathOf } from './kinds.ts'
import { kindOfSource, readManifests } from './manifests.ts'
import { durationMs, flagOf, formatOf } from './options.ts'
import { progressLine } from './progress.ts'
import { type ListView, type ObjectView, progressOf, targetsOf } from './targets.ts'

interface Options {
  readonly filename?: readonly string[]
  readonly recursive?: boolean
  readonly selector?: string
  readonly wait?: string | boolean
  readonly timeout?: string
  readonly ignoreNotFound?: boolean
  readonly output?: string
}

interface Target {
  readonly kind: ClientKind
  readonly namespace: string
  readonly name: string
}

function checkOperands({ args, options }: Invocation<Options>): void {
  if (options.filename?.length) {
    if (args.length > 0 || options.selector) throw new UsageError('-f goes without a type, names and -l')
    return
  }
  const { names } = targetsOf(args)
  if (options.selector && names.length > 0) throw new UsageError('give names or -l, not both')
  if (options.selector || names.length > 0) return
  throw new UsageError('nothing named', 'name objects, or give -l LABELS or -f FILE')
}

async function targets(
  client: Client,
  { args, options }: Invocation<Options>,
  io: Io,
): Promise<readonly Target[]> {
  const fallback = namespaceOf(options, io)
  if (options.filename?.length) {
    const sources = await readManifests(options.filename, options.recursive === true, io)
    return sources.map((source) => ({
      kind: kindOfSource(source),
      namespace: source.manifest.metadata.namespace ?? fallback,
      name: source.manifest.metadata.name,
    }))
  }
  const { kind, names } = targetsOf(args)
  if (options.selector) {
    const query = { labelSelector: options.selector }
    const list = await client.json<ListView>('GET', pathOf(kind, fallback), { query })
    return list.items.map(({ metadata }) => ({
      kind,
      namespace: metadata.namespace ?? fallback,
      name: metadata.name,
    }))
  }
  return names.map((name) => ({ kind, namespace: fallback, name }))
}

async function untilGone(client: Client, target: Target, object: ObjectView, timeoutMs: number, io: Io) {
  const progress = progressLine(io)
  const { uid } = object.metadata
  const finished = (o: ObjectView | undefined) =>
    o === undefined || (uid !== undefined && o.metadata.uid !== uid)
  await awaitObject(
    client,
    {
      ...target,
      timeoutMs,
      what: 'its deletion',
      done: finished,
      describe: progressOf,
      progress: (o) => progress.show(`waiting for ${target.name} to go: ${progressOf(o)}`),
    },
    io,
  ).finally(progress.end)
}

async function run(invocation: Invocation<Options>, io: Io): Promise<number> {
  const { options } = invocation
  const wait = flagOf('--wait', options.wait, true)
  const timeoutMs = durationMs(options.timeout ?? '5m')
  const format = formatOf(options.output, ['name', 'json'])
  checkOperands(invocation)
  const client = connect(options, io)
  const deleted: (Target & { object: ObjectView })[] = []
  let missing: unknown
  const chosen = await targets(client, invocation, io)
  for (const target of chosen) {
    const { kind, namespace, name } = target
    try {
      const object = await client.json<ObjectView>('DELETE', pathOf(kind, namespace, name))
      deleted.push({ ...target, object })
      if (format === 'name') io.stdout.write(`${nameOf(kind, name)}\n`)
      else if (format === undefined) io.stdout.write(`${nameOf(kind, name).replace('/', ' "')}" deleted\n`)
    } catch (error) {
      if (!isServerError(error, 'NotFound')) throw error
      if (!options.ignoreNotFound) missing ??= error
    }
  }
  if (wait)
    for (const { object, ...target } of deleted) await untilGone(client, target, object, timeoutMs, io)
  if (format === 'json') {
    const items = deleted.map((d) => d.object)
    io.stdout.write(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', metadata: {}, items }, null, 2)}\n`)
  }
  client.close()
  if (missing) throw missing
  if (chosen.length === 0) io.stderr.write('No resources found.\n')
  return 0
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('[type]')
      .argument('[name...]')
      .option('-f, --filename <path...>', 'delete what these files name')
      .option('-R, --recursive', 'look into the folders below, too')
      .option('-l, --selector <labels>', 'delete what has these labels')
      .option('--wait [bool]', 'return only when they are gone; default true')
      .option('--timeout <duration>', 'longest wait for each; default 5m')
      .option('--ignore-not-found', 'no error where there is nothing')
      .option('-o, --output <format>', 'json or name'),
  run,
}
