import type { Clock } from '../../src/lib/clock.ts'

interface Timer {
  readonly at: number
  readonly fn: () => void
  handle: NodeJS.Timeout
}

/** The system's clock, with leaps: real processes run beside it, and what would take minutes takes none. */
export class SkippingClock implements Clock {
  #skipped = 0
  readonly #timers = new Set<Timer>()

  now(): number {
    return Date.now() + this.#skipped
  }

  elapsed(): number {
    return performance.now() + this.#skipped
  }

  after(ms: number, fn: () => void): () => void {
    const timer: Timer = { at: this.elapsed() + ms, fn, handle: setTimeout(() => this.#fire(timer), ms) }
    this.#timers.add(timer)
    return () => {
      clearTimeout(timer.handle)
      this.#timers.delete(timer)
    }
  }

  /** Leaps ahead; timers that are due by then fire now, in their order. */
  skip(ms: number): void {
    this.#skipped += ms
    for (const timer of [...this.#timers].sort((a, b) => a.at - b.at)) {
      if (!this.#timers.has(timer)) continue
      clearTimeout(timer.handle)
      const left = timer.at - this.elapsed()
      if (left <= 0) this.#fire(timer)
      else timer.handle = setTimeout(() => this.#fire(timer), left)
    }
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer)
    timer.fn()
  }
}
