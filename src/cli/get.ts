import { type Client, connect, type WatchFrame } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { UsageError } from './failure.ts'
import type { Invocation, Io } from './io.ts'
import { type ClientKind, nameOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { type Format, renderObject, renderTable } from './output.ts'
import { type ListView, type ObjectView, targetsOf } from './targets.ts'

/** Kubernetes' Table (meta.k8s.io/v1): the server chooses and renders the columns. */
interface TableView {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly columnDefinitions?: readonly { readonly name: string; readonly priority?: number }[]
  readonly rows?: readonly { readonly cells: readonly unknown[]; readonly object?: ObjectView }[]
}

interface Options {
  readonly allNamespaces?: boolean
  readonly watch?: boolean
  readonly output?: string
  readonly selector?: string
  readonly fieldSelector?: string
  readonly headers?: boolean
}

export interface Selection {
  readonly kind: ClientKind
  readonly names: readonly string[]
  /** Absent: all of them. */
  readonly namespace?: string
  readonly query: Readonly<Record<string, string | undefined>>
}

const tableType = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'

/** Prints Tables one after the other with the same columns; the header only once. */
function tablePrinter(io: Io, wide: boolean, allNamespaces: boolean, header: boolean) {
  let columns: NonNullable<TableView['columnDefinitions']> = []
  let widths: readonly number[] = []
  let headers = header
  return (table: TableView) => {
    // Watch frames after the first may leave the column definitions out.
    if (table.columnDefinitions?.length) columns = table.columnDefinitions
    const shown = columns.flatMap((c, i) => (wide || !c.priority ? [i] : []))
    const names = shown.map((i) => columns[i]?.name ?? '')
    const rows = (table.rows ?? []).map(({ cells, object }) => {
      const own = shown.map((i) => cells[i])
      return allNamespaces ? [object?.metadata.namespace, ...own] : own
    })
    const all = { columns: allNamespaces ? ['Namespace', ...names] : names, rows }
    const rendered = renderTable(all, { out: io.stdout, env: io.env, headers, widths })
    io.stdout.write(rendered.text)
    widths = rendered.widths
    headers = false
  }
}

const paths = ({ kind, namespace, names }: Selection) =>
  names.length === 0 ? [pathOf(kind, namespace)] : names.map((name) => pathOf(kind, namespace, name))

async function printTables(
  client: Client,
  selection: Selection,
  io: Io,
  options: Options,
): Promise<string | undefined> {
  const every = options.allNamespaces === true && selection.kind.namespaced
  const print = tablePrinter(io, options.output === 'wide', every, options.headers !== false)
  const { query } = selection
  const tables: TableView[] = []
  for (const path of paths(selection)) {
    tables.push(await client.json<TableView>('GET', path, { query, accept: tableType, signal: io.signal }))
  }
  const [first] = tables
  const rows = tables.flatMap((t) => t.rows ?? [])
  if (rows.length > 0) print({ ...first, rows })
  else if (!options.watch) {
    const where = selection.namespace ? ` in ${selection.namespace} namespace` : ''
    io.stderr.write(`No resources found${where}.\n`)
  }
  if (!options.watch) return undefined
  const resourceVersion = first?.metadata?.resourceVersion
  for await (const frame of follow<TableView>(client, selection, resourceVersion, tableType, io))
    print(frame.object)
  return resourceVersion
}

/** Frames of a watch over a selection, bookmarks left out; ends when the server ends it or on Ctrl-C. */
export async function* follow<T>(
  client: Client,
  { kind, namespace, names, query }: Selection,
  resourceVersion: string | undefined,
  accept: string,
  io: Pick<Io, 'signal'>,
): AsyncGenerator<WatchFrame<T>> {
  const fieldSelector = names.length === 1 ? `metadata.name=${names[0]}` : query['fieldSelector']
  const wanted = { ...query, resourceVersion, fieldSelector }
  try {
    for await (const frame of client.watch<T>(pathOf(kind, namespace), {
      query: wanted,
      accept,
      signal: io.signal,
    })) {
      if (frame.type !== 'BOOKMARK') yield frame
    }
  } catch (error) {
    if (!io.signal.aborted) throw error
  }
}

async function printObjects(client: Client, selection: Selection, io: Io, format: 'json' | 'yaml' | 'name') {
  const { query, kind, names } = selection
  const found: ObjectView[] = []
  let version: string | undefined
  let whole: unknown
  for (const path of paths(selection)) {
    const answer = await client.json<ListView | ObjectView>('GET', path, { query, signal: io.signal })
    whole = answer
    version = answer.metadata?.resourceVersion
    found.push(...('items' in answer ? answer.items : [answer]))
  }
  if (format === 'name') for (const o of found) io.stdout.write(`${nameOf(kind, o.metadata.name)}\n`)
  else {
    const list = { apiVersion: 'v1', kind: 'List', metadata: {}, items: found }
    io.stdout.write(await renderObject(names.length > 1 ? list : whole, format))
  }
  return version
}

async function printChanges(
  client: Client,
  selection: Selection,
  version: string | undefined,
  io: Io,
  format: NonNullable<Format>,
): Promise<void> {
  for await (const { object } of follow<ObjectView>(client, selection, version, 'application/json', io)) {
    if (format === 'name') io.stdout.write(`${nameOf(selection.kind, object.metadata.name)}\n`)
    else if (format === 'json') io.stdout.write(await renderObject(object, 'json'))
    else io.stdout.write(`---\n${await renderObject(object, 'yaml')}`)
  }
}

async function run({ args, options }: Invocation<Options>, io: Io): Promise<number> {
  const { kind, names } = targetsOf(args)
  const format = formatOf(options.output, ['wide', 'json', 'yaml', 'name'])
  if (options.allNamespaces && names.length > 0) throw new UsageError('a NAME can’t be looked up with -A')
  if (names.length > 0 && options.selector) throw new UsageError('give names or -l, not both')
  if (options.watch && names.length > 1) throw new UsageError('-w takes one name, or none')
  const query = { labelSelector: options.selector, fieldSelector: options.fieldSelector }
  const namespace = options.allNamespaces ? {} : { namespace: namespaceOf(options, io) }
  const selection: Selection = { kind, names, query, ...(kind.namespaced ? namespace : {}) }
  const client = connect(options, io)
  if (format === 'json' || format === 'yaml' || format === 'name') {
    const version = await printObjects(client, selection, io, format)
    if (options.watch) await printChanges(client, selection, version, io, format)
  } else await printTables(client, selection, io, options)
  client.close()
  return 0
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('<type>', 'such as vm, host, event; or TYPE/NAME')
      .argument('[name...]')
      .option('-A, --all-namespaces', 'across all namespaces')
      .option('-w, --watch', 'go on and print what changes')
      .option('-o, --output <format>', 'wide, json, yaml or name')
      .option('-l, --selector <labels>', 'such as app=web,tier!=test')
      .option('--field-selector <fields>', 'such as status.phase=Running')
      .option('--no-headers', 'leave the header line out'),
  run,
}
