import type { Clock } from '../lib/clock.ts'

/** Hears what a queue does; must not throw. */
export interface QueueObserver {
  /** A key was put in line. */
  added(key: string): void
  /** A worker has it. */
  started(key: string): void
  /** And gives it back. */
  done(key: string): void
}

/**
 * A work queue that holds each key at most once and gives it to one worker at a time: a key added while a worker
 * has it runs exactly once more afterwards. Delayed additions keep the earliest time.
 */
export class WorkQueue {
  readonly #clock: Clock
  readonly #ready: string[] = []
  readonly #dirty = new Set<string>()
  readonly #busy = new Set<string>()
  readonly #delayed = new Map<string, { at: number; cancel: () => void }>()
  readonly #waiting: ((key: string | undefined) => void)[] = []
  #closed = false
  #observer: QueueObserver | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** From now on; one at a time. */
  observe(observer: QueueObserver): void {
    this.#observer = observer
  }

  /** Keys that wait for a worker. */
  get depth(): number {
    return this.#ready.length
  }

  /** Nothing waits, runs or is due; delayed keys do not count. */
  get idle(): boolean {
    return this.#dirty.size === 0 && this.#busy.size === 0
  }

  add(key: string): void {
    if (this.#closed) return
    this.#cancelDelayed(key)
    if (this.#dirty.has(key)) return
    this.#dirty.add(key)
    this.#observer?.added(key)
    if (!this.#busy.has(key)) this.#push(key)
  }

  /** Adds after `ms`, unless the key is already due sooner. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return
    if (ms <= 0) return this.add(key)
    const at = this.#clock.elapsed() + ms
    const before = this.#delayed.get(key)
    if (before && before.at <= at) return
    before?.cancel()
    const cancel = this.#clock.after(ms, () => {
      this.#delayed.delete(key)
      this.add(key)
    })
    this.#delayed.set(key, { at, cancel })
  }

  /** The next key, to be given back with `done`; undefined when the queue is closed. */
  take(): Promise<string | undefined> {
    const key = this.#ready.shift()
    if (key !== undefined) return Promise.resolve(this.#start(key))
    if (this.#closed) return Promise.resolve(undefined)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  done(key: string): void {
    this.#busy.delete(key)
    this.#observer?.done(key)
    if (this.#dirty.has(key)) this.#push(key)
  }

  close(): void {
    this.#closed = true
    for (const key of [...this.#delayed.keys()]) this.#cancelDelayed(key)
    this.#ready.length = 0
    this.#dirty.clear()
    for (const resolve of this.#waiting.splice(0)) resolve(undefined)
  }

  #start(key: string): string {
    this.#dirty.delete(key)
    this.#busy.add(key)
    this.#observer?.started(key)
    return key
  }

  #push(key: string): void {
    const waiting = this.#waiting.shift()
    if (waiting) waiting(this.#start(key))
    else this.#ready.push(key)
  }

  #cancelDelayed(key: string): void {
    this.#delayed.get(key)?.cancel()
    this.#delayed.delete(key)
  }
}
