import type { Timeline } from './clock.ts'
import type { Random } from './random.ts'

/** What a broken link does to a message: loses it, or tells the sender at once. */
export type Cut = 'drop' | 'refuse'

/** Name of the store among the nodes of the network. */
export const storeNode = 'store'

/** The network between hosts and store: every message takes its own time, and links break one way or both. */
export class Net {
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #cuts = new Map<string, Cut>()
  readonly #slow = new Map<string, number>()
  readonly #healed = new Set<() => void>()
  /** Shortest and longest way of a message over a good link, ms. */
  latency: readonly [number, number] = [0.2, 2]

  constructor(timeline: Timeline, random: Random) {
    this.#timeline = timeline
    this.#random = random
  }

  cut(from: string, to: string, how: Cut): void {
    this.#cuts.set(`${from}>${to}`, how)
  }

  heal(from: string, to: string): void {
    this.#slow.delete(`${from}>${to}`)
    if (!this.#cuts.delete(`${from}>${to}`)) return
    for (const tell of [...this.#healed]) tell()
  }

  healAll(): void {
    this.#slow.clear()
    this.#cuts.clear()
    for (const tell of [...this.#healed]) tell()
  }

  /** Messages of this link take up to that much longer, each its own time: they overtake one another. */
  slow(from: string, to: string, ms: number): void {
    this.#slow.set(`${from}>${to}`, ms)
  }

  how(from: string, to: string): Cut | undefined {
    return this.#cuts.get(`${from}>${to}`)
  }

  /** How long the next message of a link takes, ms. */
  delay(from: string, to: string): number {
    const [least, most] = this.latency
    const usual = this.#random.between(least, most)
    const slow = this.#slow.get(`${from}>${to}`)
    return slow === undefined ? usual : usual + this.#random.next() * slow
  }

  /** Sends a message; it is lost where the link is cut now or when it would arrive. */
  send(from: string, to: string, arrive: () => void): void {
    if (this.#cuts.has(`${from}>${to}`)) return
    this.#timeline.after(this.delay(from, to), () => {
      if (!this.#cuts.has(`${from}>${to}`)) arrive()
    })
  }

  /** Calls the listener whenever a link was mended. @returns unsubscribe */
  onHealed(listener: () => void): () => void {
    this.#healed.add(listener)
    return () => this.#healed.delete(listener)
  }
}
