import type { Clock } from '../lib/clock.ts'

interface Entry {
  readonly at: number
  readonly order: number
  run: (() => void) | undefined
}

/**
 * Resolves when no microtask is left: Node empties their queue before it goes on to the next tick. A turn of the event
 * loop would do as well, at several times the cost.
 */
const settled = () => new Promise<void>((resolve) => process.nextTick(resolve))
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
/** After so many steps the event loop gets a turn, for the rest of the program. */
const turnEvery = 4_096

/** The one time of a simulated world, ms since its beginning, and everything that is still to happen in it. */
export class Timeline {
  #now = 0
  #order = 0
  #steps = 0
  #pids = 100
  /** A binary heap by time, then by order: of equals the one set first. */
  readonly #heap: Entry[] = []

  get now(): number {
    return this.#now
  }

  /** Events that have run. */
  get steps(): number {
    return this.#steps
  }

  nextPid(): number {
    this.#pids += 1
    return this.#pids
  }

  /** Has `run` happen at `when`, or now where that is past. @returns cancel */
  at(when: number, run: () => void): () => void {
    const entry: Entry = { at: Math.max(when, this.#now), order: this.#order++, run }
    this.#push(entry)
    return () => {
      entry.run = undefined
    }
  }

  after(ms: number, run: () => void): () => void {
    return this.at(this.#now + ms, run)
  }

  /**
   * Runs the next event, if one is due by `until`, and everything that it sets going without waiting for another.
   * @returns whether there was one
   */
  async step(until: number): Promise<boolean> {
    for (let next = this.#heap[0]; next; next = this.#heap[0]) {
      if (next.run === undefined) {
        this.#pop()
        continue
      }
      if (next.at > until) break
      this.#pop()
      this.#now = next.at
      this.#steps += 1
      next.run()
      await (this.#steps % turnEvery === 0 ? turn() : settled())
      return true
    }
    if (this.#now < until) this.#now = until
    return false
  }

  #push(entry: Entry): void {
    const heap = this.#heap
    let i = heap.length
    heap.push(entry)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(entry, heap[parent] as Entry)) break
      heap[i] = heap[parent] as Entry
      i = parent
    }
    heap[i] = entry
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (!last || heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1] as Entry, heap[child] as Entry)) child += 1
      if (!before(heap[child] as Entry, last)) break
      heap[i] = heap[child] as Entry
      i = child
    }
    heap[i] = last
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}

/** The clocks of one host's hardware. */
export interface HostTime {
  /** Its seconds to a second of the world; good machines are within 1 % of 1. */
  rate: number
  /** Wall time at the beginning of the world, ms; a jump of the clock changes it. */
  epoch: number
  /** When it was last booted, ms of the world. */
  bootedAt: number
}

/**
 * A process of the simulated world. Whatever reaches it (a timer, an answer, a message) goes through `deliver`: while
 * it is stopped that waits, though time goes on; once it is dead nothing of it runs any more.
 */
export class SimProcess {
  readonly name: string
  /** Unique in its world. */
  readonly pid: number
  readonly clock: Clock
  /** As `clock`, but `elapsed` counts from the boot of its host, as all its processes see it. */
  readonly hostClock: Clock
  readonly #timeline: Timeline
  readonly #stopped = new Set<string>()
  #dead = false
  #inbox: (() => void)[] = []

  constructor(name: string, timeline: Timeline, time: HostTime) {
    this.name = name
    this.pid = timeline.nextPid()
    this.#timeline = timeline
    const born = timeline.now
    this.clock = {
      now: () => time.epoch + timeline.now,
      elapsed: () => 1_000 + (timeline.now - born) * time.rate,
      after: (ms, fn) => timeline.after(Math.max(0, ms) / time.rate, () => this.deliver(fn)),
    }
    const { bootedAt } = time
    this.hostClock = { ...this.clock, elapsed: () => 10_000 + (timeline.now - bootedAt) * time.rate }
  }

  get alive(): boolean {
    return !this.#dead
  }

  get running(): boolean {
    return !this.#dead && this.#stopped.size === 0
  }

  deliver(run: () => void): void {
    if (this.#dead) return
    if (this.#stopped.size > 0) this.#inbox.push(run)
    else run()
  }

  /** Stops it for a reason; it goes on when none is left. */
  stop(why: string): void {
    this.#stopped.add(why)
  }

  cont(why: string): void {
    if (!this.#stopped.delete(why) || this.#stopped.size > 0) return
    const waiting = this.#inbox
    this.#inbox = []
    // Each as an event of its own, so that what one sets going comes to rest before the next.
    for (const run of waiting) this.#timeline.after(0, () => this.deliver(run))
  }

  kill(): void {
    this.#dead = true
    this.#inbox = []
  }
}
