import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../../src/lib/clock.ts'

interface Timer {
  readonly at: number
  readonly fn: () => void
}

/** Time that stands still until a test moves it. */
export class VirtualClock implements Clock {
  #elapsed = 0
  readonly #epoch: number
  readonly #timers = new Set<Timer>()

  constructor(epoch = Date.parse('2026-01-01T00:00:00Z')) {
    this.#epoch = epoch
  }

  now(): number {
    return this.#epoch + this.#elapsed
  }

  elapsed(): number {
    return this.#elapsed
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { at: this.#elapsed + Math.max(0, ms), fn }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  /** Timers that wait. */
  get pending(): number {
    return this.#timers.size
  }

  /** Moves on by `ms`, timer by timer; whatever each sets going comes to rest before the next. */
  async advance(ms: number): Promise<void> {
    const target = this.#elapsed + ms
    await turn()
    for (let next = this.#due(target); next; next = this.#due(target)) {
      this.#elapsed = next.at
      this.#timers.delete(next)
      next.fn()
      await turn()
    }
    this.#elapsed = target
  }

  /** Lets what was set going come to rest; no time passes. */
  settle(): Promise<void> {
    return this.advance(0)
  }

  /** The earliest timer until then; of equals the one set first. */
  #due(target: number): Timer | undefined {
    const due = [...this.#timers].filter((timer) => timer.at <= target)
    return due.reduce<Timer | undefined>(
      (first, timer) => (first && first.at <= timer.at ? first : timer),
      undefined,
    )
  }
}
