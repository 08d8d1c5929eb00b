import { ApiError } from './errors.ts'
import type { KvEvent } from './kv.ts'

/** Events a reader may be behind before it is cut. */
const maxPending = 10_000

interface Reader {
  readonly prefix: string
  readonly pending: KvEvent[]
  wake: (() => void) | undefined
  overflowed: boolean
}

export function tooOld(from: bigint): ApiError {
  return new ApiError(
    'Gone',
    `too old resource version: ${from}`,
    {},
    { hint: 'list anew and watch from there' },
  )
}

/** Fans committed events out to watchers, each with a bounded buffer. */
export class Feed {
  readonly #readers = new Set<Reader>()

  /** Events must come in revision order. */
  publish(events: readonly KvEvent[]): void {
    for (const reader of this.#readers) {
      for (const event of events) {
        if (!event.key.startsWith(reader.prefix)) continue
        if (reader.pending.length < maxPending) reader.pending.push(event)
        else reader.overflowed = true
      }
      reader.wake?.()
    }
  }

  /**
   * History after `from`, then whatever is published. `history` is read after the reader is registered, so nothing
   * falls between; what comes twice is dropped by its revision.
   */
  async *watch(
    prefix: string,
    from: bigint,
    signal: AbortSignal,
    history: (from: bigint) => readonly KvEvent[],
  ): AsyncGenerator<KvEvent> {
    const reader: Reader = { prefix, pending: [], wake: undefined, overflowed: false }
    this.#readers.add(reader)
    const onAbort = () => reader.wake?.()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      let seen = from
      for (const event of history(from)) {
        if (signal.aborted) return
        seen = event.revision
        if (event.key.startsWith(prefix)) yield event
      }
      while (!signal.aborted) {
        for (const event of reader.pending.splice(0)) {
          if (signal.aborted) return
          if (event.revision > seen) yield event
        }
        if (reader.overflowed) throw tooOld(seen)
        if (reader.pending.length === 0 && !signal.aborted)
          await new Promise<void>((resolve) => {
            reader.wake = resolve
          })
        reader.wake = undefined
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      this.#readers.delete(reader)
    }
  }
}
