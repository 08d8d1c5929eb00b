import type { Column, KubeObject, ObjectMeta, ResourceDefinition } from './define.ts'
import { valueAtPath } from './jsonpath.ts'

export interface TableColumn {
  readonly name: string
  readonly type: string
  readonly format: string
  readonly description: string
  readonly priority: number
}

export interface TableRow {
  readonly cells: readonly unknown[]
  readonly object?: { readonly apiVersion: string; readonly kind: string; readonly metadata: ObjectMeta }
}

/** What a row says of its object besides the cells. */
export type IncludeObject = 'None' | 'Metadata' | 'Object'

interface ListMeta {
  readonly resourceVersion?: string
  readonly continue?: string
  readonly remainingItemCount?: number
}

/** A meta.k8s.io/v1 Table: what `kubectl get` asks for. */
export interface Table {
  readonly kind: 'Table'
  readonly apiVersion: 'meta.k8s.io/v1'
  readonly metadata: ListMeta
  readonly columnDefinitions: readonly TableColumn[]
  readonly rows: readonly TableRow[]
}

export interface TableOptions {
  /** Wall milliseconds that ages are counted to. */
  readonly now: number
  /** Leaves out columns of priority 1 where false; kubectl hides them itself, so they are sent unless told otherwise. */
  readonly wide?: boolean
  readonly metadata?: ListMeta
  /** Metadata unless told otherwise. */
  readonly includeObject?: IncludeObject
}

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour
const year = 365 * day

function two(ms: number, big: number, bigName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % big) / small)
  return `${Math.floor(ms / big)}${bigName}${rest > 0 ? `${rest}${smallName}` : ''}`
}

/**
 * A span of milliseconds as Kubernetes writes ages (apimachinery duration.HumanDuration): two units while they are
 * small, then one. Up to two seconds in the future counts as clock skew and is `0s`.
 */
export function humanDuration(ms: number): string {
  if (!(ms > -2 * second)) return '<invalid>'
  if (ms < 0) return '0s'
  if (ms < 2 * minute) return `${Math.floor(ms / second)}s`
  if (ms < 10 * minute) return two(ms, minute, 'm', second, 's')
  if (ms < 3 * hour) return `${Math.floor(ms / minute)}m`
  if (ms < 8 * hour) return two(ms, hour, 'h', minute, 'm')
  if (ms < 2 * day) return `${Math.floor(ms / hour)}h`
  if (ms < 8 * day) return two(ms, day, 'd', hour, 'h')
  if (ms < 2 * year) return `${Math.floor(ms / day)}d`
  if (ms < 8 * year) return two(ms, year, 'y', day, 'd')
  return `${Math.floor(ms / year)}y`
}

/** The first of a table, unless the kind has a place of its own for it. */
const nameColumn: Column = {
  name: 'Name',
  type: 'string',
  path: '.metadata.name',
  description: 'Name, unique within a namespace.',
}

function cell(column: Column, object: KubeObject, now: number): unknown {
  const value = column.value ? column.value(object as never, now) : valueAtPath(object, column.path)
  if (column.type === 'date') {
    return typeof value === 'string' ? humanDuration(now - Date.parse(value)) : '<unknown>'
  }
  if (value === undefined || value === null) return column.type === 'integer' ? null : ''
  if (column.type === 'integer') return typeof value === 'number' ? value : String(value)
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

function definition(column: Column): TableColumn {
  const { name, type, description = '', priority = 0 } = column
  // Which column has the name is known by this, wherever it stands.
  const format = column.path === nameColumn.path ? 'name' : ''
  return { name, type: type === 'date' ? 'string' : type, format, description, priority }
}

/**
 * Objects as a server-side table. Cells follow Kubernetes: ages are spans, what is absent is empty, and null
 * where a number belongs.
 */
export function toTable<T extends KubeObject>(
  kind: ResourceDefinition<T>,
  objects: readonly T[],
  options: TableOptions,
): Table {
  const { now, wide = true, metadata = {}, includeObject = 'Metadata' } = options
  const placed = kind.columns.some(({ path }) => path === nameColumn.path)
  const all = placed ? kind.columns : [nameColumn, ...kind.columns]
  const columns = all.filter((column) => wide || !column.priority)
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata,
    columnDefinitions: columns.map(definition),
    rows: objects.map((object) => ({
      cells: columns.map((column) => cell(column, object, now)),
      ...(includeObject === 'Metadata' && {
        object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata },
      }),
      ...(includeObject === 'Object' && { object }),
    })),
  }
}
