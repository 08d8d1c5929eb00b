import { weightOf } from './history.ts'
import type { KvEvent, WatchProgress } from './kv.ts'

/** Events, and bytes of them, that wait for a reader. One that is further behind goes back to the history. */
const maxPending = 1_000
const maxPendingBytes = 16 * 1024 * 1024

interface Reader {
  readonly prefix: string
  pending: KvEvent[]
  bytes: number
  /** Everything up to here is in `pending`, was taken from it or is not of this reader. */
  upTo: bigint
  behind: boolean
  wake: () => void
}

/** Fans committed events out to watchers, each with a bounded buffer. */
export class Feed {
  readonly #readers = new Set<Reader>()

  /**
   * Events must come in revision order.
   * @param upTo where there are no others up to a later revision than that of the last one
   */
  publish(events: readonly KvEvent[], upTo = 0n): void {
    for (const reader of this.#readers) {
      for (const event of events) offer(reader, event)
      if (upTo > reader.upTo && !reader.behind) reader.upTo = upTo
      if (reader.pending.length > 0) reader.wake()
    }
  }

  /**
   * Everything after `from`, then whatever is published. `history` gives the next committed events after a revision,
   * oldest first, none where there are none, and throws where it no longer has them: that ends a reader that is too slow.
   */
  async *watch(
    prefix: string,
    from: bigint,
    signal: AbortSignal,
    history: (after: bigint) => readonly KvEvent[],
    progress: WatchProgress = {},
  ): AsyncGenerator<KvEvent> {
    let seen = from
    while (!signal.aborted) {
      for (let events = history(seen); events.length > 0; events = history(seen)) {
        for (const event of events) {
          seen = event.revision
          if (event.key.startsWith(prefix)) yield event
          if (signal.aborted) return
        }
      }
      // No await lies between the empty history and this: nothing falls between.
      const reader: Reader = { prefix, pending: [], bytes: 0, upTo: seen, behind: false, wake() {} }
      this.#readers.add(reader)
      const next = () => {
        progress.upTo = () => (reader.pending.length > 0 || reader.behind ? undefined : reader.upTo)
        return taken(reader, signal)
      }
      try {
        for (let events = await next(); events.length > 0; events = await next()) {
          progress.upTo = () => undefined
          for (const event of events) {
            // Its commit may have been read from the history before it was published.
            if (event.revision > seen) yield event
            if (signal.aborted) return
          }
        }
      } finally {
        progress.upTo = () => undefined
        this.#readers.delete(reader)
      }
      if (reader.upTo > seen) seen = reader.upTo
    }
  }
}

function offer(reader: Reader, event: KvEvent): void {
  if (reader.behind) return
  if (event.key.startsWith(reader.prefix)) {
    reader.bytes += weightOf(event)
    if (reader.pending.length >= maxPending || reader.bytes > maxPendingBytes) {
      reader.behind = true
      return
    }
    reader.pending.push(event)
  }
  reader.upTo = event.revision
}

/** What waits for a reader, as soon as something does; nothing once it is behind and has all, or is to stop. */
async function taken(reader: Reader, signal: AbortSignal): Promise<readonly KvEvent[]> {
  if (reader.pending.length === 0 && !reader.behind && !signal.aborted) {
    const woken = Promise.withResolvers<void>()
    reader.wake = woken.resolve
    signal.addEventListener('abort', reader.wake, { once: true })
    await woken.promise
    signal.removeEventListener('abort', reader.wake)
  }
  const events = reader.pending
  reader.pending = []
  reader.bytes = 0
  return events
}
