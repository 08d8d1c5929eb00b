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
  readonly all?: boolean
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
    if (args.length > 0 || options.selector || options.all)
      throw new UsageError('-f goes without a type, names, -l and --all')
    return
  }
  const named = targetsOf(args).some(({ names }) => names.length > 0)
  const ways = [named, options.selector !== undefined, options.all === true].filter(Boolean).length
  if (ways > 1) throw new UsageError('give names, -l or --all, only one of them')
  if (ways === 0) throw new UsageError('nothing named', 'name objects, or give -l LABELS, --all or -f FILE')
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
  const found: Target[] = []
  for (const { kind, names } of targetsOf(args)) {
    found.push(...names.map((name) => ({ kind, namespace: fallback, name })))
    if (names.length > 0) continue
    const query = { labelSelector: options.selector }
    const list = await client.json<ListView>('GET', pathOf(kind, fallback), { query })
    found.push(
      ...list.items.map(({ metadata }) => ({
        kind,
        namespace: metadata.namespace ?? fallback,
        name: metadata.name,
      })),
    )
  }
  return found
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
      ...{ timeoutMs, patient: true },
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
      .option('--all', 'delete all of the type in the namespace')
      .option('--wait [bool]', 'return only when they are gone; default true')
      .option('--timeout <duration>', 'longest wait for each; default 5m')
      .option('--ignore-not-found', 'no error where there is nothing')
      .option('-o, --output <format>', 'json or name'),
  examples: ['delete vm web', 'delete vm web --wait=false', 'delete -f vm.yaml', 'delete vms -l app=web'],
  run,
}
