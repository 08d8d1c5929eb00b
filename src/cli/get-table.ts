import type { Client } from './client.ts'
import { follow, type Selection } from './follow.ts'
import type { Io } from './io.ts'
import { type ClientKind, nameOf } from './kinds.ts'
import { renderTable } from './output.ts'
import type { ObjectView } from './targets.ts'

/** Kubernetes' Table (meta.k8s.io/v1): the server chooses and renders the columns. */
export interface TableView {
  readonly metadata?: { readonly resourceVersion?: string }
  readonly columnDefinitions?: readonly {
    readonly name: string
    readonly priority?: number
    readonly format?: string
  }[]
  readonly rows?: readonly { readonly cells: readonly unknown[]; readonly object?: ObjectView }[]
}

export const tableType = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'

export interface TableStyle {
  readonly wide: boolean
  /** A first column with the namespace. */
  readonly namespaces: boolean
  readonly labels: boolean
  readonly headers: boolean
  /** Names with their type before them: there are several types. */
  readonly types: boolean
  /** Rows follow one by one: room is kept for the longest status. */
  readonly watch: boolean
}

const longestStatus = 'CrashLoopBackOff'.length

function labelsOf(object: ObjectView | undefined): string {
  return Object.entries(object?.metadata.labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}

/** Prints Tables of a kind one after the other with the same columns; the header only once. */
export function tablePrinter(io: Io, kind: ClientKind, style: TableStyle): (table: TableView) => void {
  let columns: NonNullable<TableView['columnDefinitions']> = []
  let widths: readonly number[] | undefined
  let { headers } = style
  return (table) => {
    // Watch frames after the first may leave the column definitions out.
    if (table.columnDefinitions?.length) columns = table.columnDefinitions
    const shown = columns.flatMap((c, i) => (style.wide || !c.priority ? [i] : []))
    const names = [
      ...(style.namespaces ? ['Namespace'] : []),
      ...shown.map((i) => columns[i]?.name ?? ''),
      ...(style.labels ? ['Labels'] : []),
    ]
    const rows = (table.rows ?? []).map(({ cells, object }) => [
      ...(style.namespaces ? [object?.metadata.namespace] : []),
      ...shown.map((i) =>
        style.types && columns[i]?.format === 'name' ? nameOf(kind, String(cells[i])) : cells[i],
      ),
      ...(style.labels ? [labelsOf(object)] : []),
    ])
    widths ??= style.watch ? names.map((name) => (name === 'Status' ? longestStatus : 0)) : []
    const rendered = renderTable({ columns: names, rows }, { out: io.stdout, env: io.env, headers, widths })
    io.stdout.write(rendered.text)
    widths = rendered.widths
    headers = false
  }
}

/** Prints what a watch tells until it ends. */
export async function printWatch(
  client: Client,
  selection: Selection,
  resourceVersion: string | undefined,
  io: Io,
  print: (table: TableView) => void,
): Promise<void> {
  for await (const { object } of follow<TableView>(client, selection, resourceVersion, tableType, io))
    print(object)
}
