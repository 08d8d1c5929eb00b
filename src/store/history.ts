import { ApiError } from './errors.ts'
import type { KvEntry, KvEvent, KvList, ListedEntry } from './kv.ts'

/** How much of the past a store keeps: events, and bytes of them, whichever is less. */
export const defaultHistory = { limit: 10_000, bytes: 128 * 1024 * 1024 } as const

/** Events read at once from the history; a watcher far behind must not hold all of it in memory. */
export const historyChunk = 256

/** What an event weighs in the history: mostly its two values. Bytes, for the ASCII that JSON nearly always is. */
export function weightOf(event: KvEvent): number {
  const value = event.type === 'put' ? event.value.length : 0
  return event.key.length + value + (event.previous?.value.length ?? 0)
}

export function tooOld(from: bigint): ApiError {
  return new ApiError(
    'Gone',
    `too old resource version: ${from}`,
    {},
    { hint: 'list anew and watch from there' },
  )
}

/**
 * What the keys under `prefix` and beyond `after` were before `events`, which must be all events since then, oldest
 * first. Undefined stands for a key that was not there.
 */
export function undo(
  events: Iterable<KvEvent>,
  prefix: string,
  after: string,
): Map<string, KvEntry | undefined> {
  const were = new Map<string, KvEntry | undefined>()
  for (const { key, previous } of events) {
    if (key <= after || !key.startsWith(prefix) || were.has(key)) continue
    were.set(key, previous && { key, ...previous })
  }
  return were
}

/** The entries now, in key order, with those keys set back to what they `were`. */
export function* setBack(
  now: Iterable<ListedEntry>,
  were: ReadonlyMap<string, KvEntry | undefined>,
): Generator<ListedEntry> {
  const old = [...were.values()].filter((entry) => entry !== undefined)
  old.sort((a, b) => (a.key < b.key ? -1 : 1))
  let next = 0
  for (const entry of now) {
    for (let one = old[next]; one && one.key <= entry.key; one = old[next]) {
      yield one
      next += 1
    }
    if (!were.has(entry.key)) yield entry
  }
  yield* old.slice(next)
}

/** The first `limit` entries, and where to go on when there are more. */
export function pageOf(entries: Iterable<ListedEntry>, limit: number | undefined, revision: bigint): KvList {
  const page: ListedEntry[] = []
  for (const entry of entries) {
    const last = page.at(-1)
    if (page.length === limit && last) return { entries: page, revision, more: last.key }
    page.push(entry)
  }
  return { entries: page, revision }
}
