import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { jsonPath } from './expectation.ts'
import { errorObject, isServerError, renderError, UsageError } from './failure.ts'
import { follow, type Selection } from './follow.ts'
import { printWatch, type TableView, tablePrinter, tableType } from './get-table.ts'
import type { Invocation, Io } from './io.ts'
import { nameOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { type Format, renderObject, withoutAccount } from './output.ts'
import { type ListView, type ObjectView, targetsOf } from './targets.ts'

interface Options {
  readonly allNamespaces?: boolean
  readonly watch?: boolean
  readonly output?: string
  readonly selector?: string
  readonly fieldSelector?: string
  readonly headers?: boolean
  readonly showLabels?: boolean
  readonly showManagedFields?: boolean
  readonly sortBy?: string
}

/** One invocation's shared things. */
interface Task {
  readonly client: Client
  readonly io: Io
  readonly options: Options
  readonly format: Format
  /** What was asked for by name and is not there. */
  readonly missing: unknown[]
}

/** Answers for a selection: one of the collection, or one a name. Names that are not there go to `missing`. */
async function fetchAll<T>(task: Task, selection: Selection, accept?: string): Promise<readonly T[]> {
  const { kind, namespace, names, query } = selection
  const { client, io, missing } = task
  const options = { signal: io.signal, ...(accept && { accept }) }
  if (names.length === 0) return [await client.json<T>('GET', pathOf(kind, namespace), { ...options, query })]
  const found: T[] = []
  for (const name of names) {
    try {
      found.push(await client.json<T>('GET', pathOf(kind, namespace, name), options))
    } catch (error) {
      if (task.options.watch || !isServerError(error, 'NotFound')) throw error
      missing.push(error)
    }
  }
  return found
}

const keyOf = ({ metadata }: ObjectView) => `${metadata.namespace ?? ''}/${metadata.name}`

function compare(a: unknown, b: unknown): number {
  if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? -1 : 1
  if (typeof a === 'number' && typeof b === 'number') return a - b
  return String(a).localeCompare(String(b), 'en', { numeric: true })
}

/** Where each object belongs by `--sort-by`; undefined without that option. @throws UsageError for a bad path */
async function ranks(task: Task, selection: Selection): Promise<ReadonlyMap<string, number> | undefined> {
  if (task.options.sortBy === undefined) return undefined
  const read = jsonPath(task.options.sortBy, sortAdvice)
  const answers = await fetchAll<ListView | ObjectView>({ ...task, missing: [] }, selection)
  const objects = answers.flatMap((a) => ('items' in a ? a.items : [a as ObjectView]))
  const sorted = objects.toSorted((a, b) => compare(read(a), read(b)))
  return new Map(sorted.map((object, index) => [keyOf(object), index]))
}

function inOrder<T>(
  items: readonly T[],
  order: ReadonlyMap<string, number> | undefined,
  of: (item: T) => ObjectView | undefined,
): readonly T[] {
  if (!order) return items
  const rank = (item: T) => {
    const object = of(item)
    return object ? (order.get(keyOf(object)) ?? order.size) : order.size
  }
  return items.toSorted((a, b) => rank(a) - rank(b))
}

/** @returns how many rows were printed */
async function printTable(task: Task, selection: Selection, types: boolean, blankFirst: boolean) {
  const { options, io, client } = task
  const print = tablePrinter(io, selection.kind, {
    wide: task.format === 'wide',
    namespaces: options.allNamespaces === true && selection.kind.namespaced,
    labels: options.showLabels === true,
    headers: options.headers !== false,
    watch: options.watch === true,
    types,
  })
  const tables = await fetchAll<TableView>(task, selection, tableType)
  const rows = inOrder(
    tables.flatMap((table) => table.rows ?? []),
    await ranks(task, selection),
    (row) => row.object,
  )
  const [first] = tables
  if (rows.length > 0 && blankFirst) io.stdout.write('\n')
  if (rows.length > 0) print({ ...first, rows })
  if (options.watch) await printWatch(client, selection, first?.metadata?.resourceVersion, io, print)
  return rows.length
}

async function printTables(task: Task, selections: readonly Selection[]): Promise<void> {
  let rows = 0
  for (const selection of selections)
    rows += await printTable(task, selection, selections.length > 1, rows > 0)
  if (rows > 0 || task.options.watch || task.missing.length > 0) return
  const namespace = selections.find((s) => s.namespace !== undefined)?.namespace
  task.io.stderr.write(`No resources found${namespace ? ` in ${namespace} namespace` : ''}.\n`)
}

async function render(task: Task, object: unknown): Promise<void> {
  const { options, io, format } = task
  const shown = options.showManagedFields ? object : withoutAccount(object)
  if (options.output?.startsWith('jsonpath=')) {
    const value = jsonPath(options.output.slice('jsonpath='.length))(shown)
    const text = typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value)
    io.stdout.write(`${text}\n`)
  } else io.stdout.write(await renderObject(shown, format === 'yaml' ? 'yaml' : 'json'))
}

async function printObjects(task: Task, selections: readonly Selection[]): Promise<void> {
  const { client, io, format, options } = task
  const one = selections.length === 1 && selections[0]?.names.length === 1
  const all: ObjectView[] = []
  let version: string | undefined
  for (const selection of selections) {
    const answers = await fetchAll<ListView | ObjectView>(task, selection)
    version = answers[0]?.metadata?.resourceVersion
    const found = answers.flatMap((a) => ('items' in a ? a.items : [a as ObjectView]))
    const sorted = inOrder(found, await ranks(task, selection), (object) => object)
    if (format === 'name')
      for (const o of sorted) io.stdout.write(`${nameOf(selection.kind, o.metadata.name)}\n`)
    all.push(...sorted)
  }
  if (format !== 'name' && (all.length > 0 || task.missing.length === 0))
    await render(task, one ? all[0] : { apiVersion: 'v1', kind: 'List', metadata: {}, items: all })
  const [first] = selections
  if (!options.watch || !first) return
  for await (const { object } of follow<ObjectView>(client, first, version, 'application/json', io)) {
    if (format === 'name') io.stdout.write(`${nameOf(first.kind, object.metadata.name)}\n`)
    else {
      if (format === 'yaml') io.stdout.write('---\n')
      await render(task, object)
    }
  }
}

function check(selections: readonly Selection[], options: Options): void {
  const names = selections.flatMap((s) => s.names)
  if (options.allNamespaces && names.length > 0) throw new UsageError('a NAME can’t be looked up with -A')
  if (names.length > 0 && options.selector) throw new UsageError('give names or -l, not both')
  if (options.watch && (names.length > 1 || selections.length > 1))
    throw new UsageError('-w takes one type, and one name or none')
  if (options.watch && options.sortBy) throw new UsageError('--sort-by goes without -w')
}

const sortAdvice = 'write a path such as --sort-by .status.restarts'
const pathAdvice =
  'write one path, such as jsonpath={.status.phase} or jsonpath={.items[0].metadata.name}; for ranges and filters: -o json and jq, or kubectl'

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  const isPath = options.output?.startsWith('jsonpath=') === true
  const format = isPath
    ? 'json'
    : formatOf(options.output, ['wide', 'json', 'yaml', 'name'], ['jsonpath={.status.phase}'])
  if (options.sortBy !== undefined) jsonPath(options.sortBy, sortAdvice)
  if (isPath) jsonPath(options.output?.slice('jsonpath='.length) ?? '', pathAdvice)
  const query = { labelSelector: options.selector, fieldSelector: options.fieldSelector }
  const namespace = options.allNamespaces ? undefined : namespaceOf(options, io)
  const selections = targetsOf(args).map(({ kind, names }): Selection => {
    const where = kind.namespaced && namespace !== undefined ? { namespace } : {}
    return { kind, names, query, ...where }
  })
  check(selections, options)
  const client = connect(options, io)
  const task: Task = { client, io, options, format, missing: [] }
  if (format === undefined || format === 'wide') await printTables(task, selections)
  else await printObjects(task, selections)
  client.close()
  for (const error of task.missing) {
    const json = `${JSON.stringify(errorObject(error), null, 2)}\n`
    io.stderr.write(options.output === 'json' ? json : renderError(error))
  }
  return task.missing.length > 0 ? 1 : 0
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('[type]', 'such as vm, host, event; or vm,host; or TYPE/NAME …; or all')
      .argument('[name...]')
      .option('-A, --all-namespaces', 'across all namespaces')
      .option('-w, --watch', 'go on and print what changes')
      .option('-o, --output <format>', 'wide, json, yaml, name or jsonpath={.status.phase}')
      .option('-l, --selector <labels>', 'such as app=web,tier!=test')
      .option('--field-selector <fields>', 'such as status.phase=Running')
      .option('--show-managed-fields', 'with who owns which fields, in json and yaml')
      .option('--show-labels', 'a last column with the labels')
      .option('--sort-by <path>', 'such as .status.restarts')
      .option('--no-headers', 'leave the header line out'),
  examples: [
    'get vms',
    'get vms -w',
    'get vm web db -o wide',
    'get vms,hosts -A',
    'get vm web -o jsonpath={.status.process.pid}',
  ],
  run,
}
