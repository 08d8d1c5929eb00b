import { EventOverflow } from './errors.ts'
import type { QmpEvent } from './events.ts'

interface Waiter<E> {
  readonly resolve: (result: IteratorResult<E, undefined>) => void
  readonly reject: (error: unknown) => void
}

/**
 * Events as an async iterable with a bounded queue. Those queued are given out first; then it ends as `finish` said.
 * A reader that falls `limit` events behind gets those, then EventOverflow: it lost some and must look at the state
 * itself. `break`, `return()` and `await using` unsubscribe.
 */
export class EventStream<E extends QmpEvent> implements AsyncIterableIterator<E, undefined> {
  readonly #limit: number
  readonly #stop: () => void
  readonly #queue: E[] = []
  readonly #waiters: Waiter<E>[] = []
  #end: { readonly error?: unknown } | undefined

  /** @param stop called once, when nothing more is wanted */
  constructor(limit: number, stop: () => void) {
    this.#limit = limit
    this.#stop = stop
  }

  push(event: E): void {
    if (this.#end) return
    const waiter = this.#waiters.shift()
    if (waiter) return waiter.resolve({ done: false, value: event })
    if (this.#queue.length < this.#limit) this.#queue.push(event)
    else this.finish(new EventOverflow('EventOverflow', `${this.#limit} events were not read in time`))
  }

  /** No more events come. Without an error the iteration just ends. Only the first call counts. */
  finish(error?: unknown): void {
    if (this.#end) return
    this.#end = error === undefined ? {} : { error }
    this.#stop()
    for (const waiter of this.#waiters.splice(0)) this.#settle(waiter)
  }

  next(): Promise<IteratorResult<E, undefined>> {
    return new Promise((resolve, reject) => {
      const value = this.#queue.shift()
      if (value !== undefined) resolve({ done: false, value })
      else if (this.#end) this.#settle({ resolve, reject })
      else this.#waiters.push({ resolve, reject })
    })
  }

  return(): Promise<IteratorResult<E, undefined>> {
    this.#queue.length = 0
    this.finish()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }

  /** An error is told once; after it the iteration is over. */
  #settle(waiter: Waiter<E>): void {
    const end = this.#end
    this.#end = {}
    if (end?.error === undefined) waiter.resolve({ done: true, value: undefined })
    else waiter.reject(end.error)
  }
}
