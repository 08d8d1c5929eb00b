import type { Clock } from '../lib/clock.ts'

/** Of each of the two memories: those of the objects heard of longest ago are forgotten. As in client-go. */
const mostEntries = 4_096
/** So many events that differ in their message only, each within this long of the one before, are told as one. */
const aggregateAfter = 10
const aggregateMs = 600_000
/** A source may tell so many events of one object at once, and then one more each five minutes. */
const spamBurst = 25
const refillMs = 300_000

const aggregatePrefix = '(combined from similar events): '

/** What an event is judged by; the source is whoever owns the correlator. */
export interface Told {
  /** Names the object for ever: kind and uid. */
  readonly about: string
  readonly type: string
  readonly reason: string
  readonly message: string
}

export type Correlated =
  /** Too many of this object: it is not to be written, but will be counted with the next of its kind that is. */
  | { readonly spam: true }
  | {
      readonly spam: false
      /** What is the same for all events that are told as one. */
      readonly key: string
      readonly message: string
      /** How often it happened since it was last to be written, this time included. */
      readonly occurrences: number
    }

/**
 * Keeps one object that is in trouble from filling the store, by the rules of client-go's EventCorrelator
 * (tools/record/events_cache.go): the same event again is counted; from the tenth that differs in its message only they
 * are combined; and a token bucket for each object limits what is written at all. Time is monotonic.
 */
export class EventCorrelator {
  readonly #clock: Clock
  readonly #similar = new Recent<{ readonly messages: Set<string>; at: number }>()
  readonly #buckets = new Recent<{ tokens: number; at: number }>()
  /** How often an event was not written. */
  readonly #missed = new Recent<number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  correlate(told: Told): Correlated {
    const now = this.#clock.elapsed()
    const { about, type, reason, message } = told
    const group = [about, type, reason].join('\0')
    const combined = this.#isCombined(group, message, now)
    const key = combined ? `${group}\0\0similar` : `${group}\0${message}`
    const missed = this.#missed.get(key) ?? 0
    if (!this.#hasToken(about, now)) {
      this.#missed.set(key, missed + 1)
      return { spam: true }
    }
    this.#missed.delete(key)
    const shown = combined ? `${aggregatePrefix}${message}` : message
    return { spam: false, key, message: shown, occurrences: missed + 1 }
  }

  #isCombined(group: string, message: string, now: number): boolean {
    const known = this.#similar.get(group)
    const fresh = !known || now - known.at > aggregateMs
    const entry = fresh ? { messages: new Set<string>(), at: now } : known
    entry.at = now
    entry.messages.add(message)
    this.#similar.set(group, entry)
    if (entry.messages.size < aggregateAfter) return false
    // Room for the next, which makes it ten again.
    for (const oldest of entry.messages) {
      entry.messages.delete(oldest)
      break
    }
    return true
  }

  #hasToken(about: string, now: number): boolean {
    const bucket = this.#buckets.get(about) ?? { tokens: spamBurst, at: now }
    const tokens = Math.min(spamBurst, bucket.tokens + (now - bucket.at) / refillMs)
    const has = tokens >= 1
    this.#buckets.set(about, { tokens: has ? tokens - 1 : tokens, at: now })
    return has
  }
}

/** The entries that were last set. */
class Recent<T> {
  readonly #entries = new Map<string, T>()

  get(key: string): T | undefined {
    return this.#entries.get(key)
  }

  set(key: string, value: T): void {
    this.#entries.delete(key)
    this.#entries.set(key, value)
    if (this.#entries.size <= mostEntries) return
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest)
      return
    }
  }

  delete(key: string): void {
    this.#entries.delete(key)
  }
}
