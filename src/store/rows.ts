import type { KvEntry, KvEvent } from './kv.ts'

/*
 * How a store's rows look: a short head, then texts as they are. As JSON strings they would be escaped on every write
 * and unescaped on every read, which took most of the time of a long list. Rows of the older form, JSON, are read, too.
 */

/** `REVISION:VALUE`. */
export function entryRow(revision: bigint, value: string): string {
  return `${revision}:${value}`
}

export function entryOf(key: string, row: string): KvEntry {
  if (row.startsWith('{')) {
    const { r, v } = JSON.parse(row) as { r: number; v: string }
    return { key, value: v, revision: BigInt(r) }
  }
  const colon = row.indexOf(':')
  return { key, value: row.slice(colon + 1), revision: BigInt(row.slice(0, colon)) }
}

/** The head of an event: key, length of the value (null where it was deleted), revision of what was before (or null). */
type Head = readonly [key: string, length: number | null, before: number | null]

/** The head as a line of JSON, then the value, then what was before. */
export function eventRow(event: KvEvent): string {
  const { key, previous } = event
  const value = event.type === 'put' ? event.value : undefined
  const head: Head = [key, value?.length ?? null, previous ? Number(previous.revision) : null]
  return `${JSON.stringify(head)}\n${value ?? ''}${previous?.value ?? ''}`
}

export function eventOf(revision: number, row: string): KvEvent {
  const end = row.indexOf('\n')
  const [key, length, before] = JSON.parse(row.slice(0, end)) as Head
  const split = end + 1 + (length ?? 0)
  const previous = { value: row.slice(split), revision: BigInt(before ?? 0) }
  const common = { key, revision: BigInt(revision) }
  if (length === null) return { type: 'delete', ...common, previous }
  return { type: 'put', ...common, value: row.slice(end + 1, split), ...(before !== null && { previous }) }
}
