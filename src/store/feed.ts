import { weightOf } from './history.ts'
import type { KvEvent, WatchProgress } from './kv.ts'

/** Events, and bytes of them, that wait for a reader. One that is further behind goes back to the history. */
const maxPending = 1_000
const maxPendingBytes = 16 * 1024 * 1024

/** The next committed events after a revision, oldest first; none where there are none. @throws where it has them no longer */
type History = (after: bigint) => readonly KvEvent[]

/** Fans committed events out to watchers, each with a bounded buffer. */
export class Feed {
  readonly #readers = new Set<Reader>()

  /**
   * Events must come in revision order.
   * @param upTo where there are no others up to a later revision than that of the last one
   */
  publish(events: readonly KvEvent[], upTo = 0n): void {
    for (const reader of [...this.#readers]) reader.offer(events, upTo)
  }

  /** Everything after `from`, then whatever is published. A reader that is too slow ends with what `history` throws. */
  watch(
    prefix: string,
    from: bigint,
    signal: AbortSignal,
    history: History,
    progress: WatchProgress = {},
  ): AsyncGenerator<KvEvent> {
    return new Reader({ readers: this.#readers, prefix, from, signal, history, progress })
  }
}

interface ReaderOptions {
  /** Those that are offered what is published. */
  readonly readers: Set<Reader>
  readonly prefix: string
  readonly from: bigint
  readonly signal: AbortSignal
  readonly history: History
  readonly progress: WatchProgress
}

type Waiting = ReturnType<typeof Promise.withResolvers<IteratorResult<KvEvent>>>

/**
 * One watch. By hand where a generator would read better: whoever waits is answered with the event itself, and not a
 * dozen turns of the microtask queue later, which a hundred watchers would take each after the other.
 */
class Reader implements AsyncGenerator<KvEvent> {
  readonly #options: ReaderOptions
  /** The revision of the last event that was given or passed over. */
  #seen: bigint
  /** What comes next, from `#next` on. */
  #batch: readonly KvEvent[] = []
  #next = 0
  #waiting: Waiting | undefined
  /** Whether it is offered what is published: once it has all of the history. */
  #live = false
  #ended = false
  #pending: KvEvent[] = []
  #bytes = 0
  /** Everything up to here is in `#pending`, was taken from it or is not of this reader. */
  #upTo = 0n
  #behind = false
  readonly #onAbort = () => this.#end()

  constructor(options: ReaderOptions) {
    this.#options = options
    this.#seen = options.from
    if (options.signal.aborted) this.#ended = true
    else options.signal.addEventListener('abort', this.#onAbort, { once: true })
    options.progress.upTo = () =>
      this.#waiting && this.#live && this.#pending.length === 0 && !this.#behind ? this.#upTo : undefined
  }

  offer(events: readonly KvEvent[], upTo: bigint): void {
    for (const event of events) this.#offer(event)
    if (upTo > this.#upTo && !this.#behind) this.#upTo = upTo
    if (this.#waiting && (this.#pending.length > 0 || this.#behind)) this.#serve(this.#waiting)
  }

  #offer(event: KvEvent): void {
    // It may have been read from the history before it was published, or be of a watch that is behind its reader.
    if (this.#behind || event.revision <= this.#upTo) return
    if (event.key.startsWith(this.#options.prefix)) {
      this.#bytes += weightOf(event)
      if (this.#pending.length >= maxPending || this.#bytes > maxPendingBytes) {
        this.#behind = true
        return
      }
      this.#pending.push(event)
    }
    this.#upTo = event.revision
  }

  next(): Promise<IteratorResult<KvEvent>> {
    // One after the other, as generators have it.
    if (this.#waiting) return this.#waiting.promise.then(() => this.next())
    const waiting: Waiting = Promise.withResolvers()
    this.#serve(waiting)
    return waiting.promise
  }

  /** Answers one who waits, or has it wait. */
  #serve(waiting: Waiting): void {
    this.#waiting = undefined
    try {
      const value = this.#ended ? undefined : this.#take()
      if (value) waiting.resolve({ done: false, value })
      else if (this.#ended) waiting.resolve({ done: true, value: undefined })
      else this.#waiting = waiting
    } catch (error) {
      this.#end()
      waiting.reject(error)
    }
  }

  /** The next event, where there is one. @throws what the history throws */
  #take(): KvEvent | undefined {
    const { prefix, history, readers } = this.#options
    for (;;) {
      for (let event = this.#batch[this.#next]; event; event = this.#batch[this.#next]) {
        this.#next += 1
        this.#seen = event.revision
        if (event.key.startsWith(prefix)) return event
      }
      this.#next = 0
      this.#batch = this.#live ? this.#pending : history(this.#seen)
      if (this.#live) {
        this.#pending = []
        this.#bytes = 0
      }
      if (this.#batch.length > 0) continue
      if (!this.#live) {
        // No await lies between the empty history and this: nothing falls between.
        this.#live = true
        this.#upTo = this.#seen
        readers.add(this)
        return undefined
      }
      if (!this.#behind) return undefined
      if (this.#upTo > this.#seen) this.#seen = this.#upTo
      this.#behind = false
      this.#live = false
      readers.delete(this)
    }
  }

  #end(): void {
    const { readers, signal, progress } = this.#options
    this.#ended = true
    this.#batch = []
    this.#pending = []
    readers.delete(this)
    signal.removeEventListener('abort', this.#onAbort)
    progress.upTo = () => undefined
    this.#waiting?.resolve({ done: true, value: undefined })
    this.#waiting = undefined
  }

  async return(): Promise<IteratorResult<KvEvent>> {
    this.#end()
    return { done: true, value: undefined }
  }

  async throw(error: unknown): Promise<IteratorResult<KvEvent>> {
    this.#end()
    throw error
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end()
  }
}
