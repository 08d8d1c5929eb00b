const minuteMs = 60_000

/** Signatures remembered in all, and of one access key. Eight to thirty-two bytes each. */
const mostInAll = 2_000_000
const mostOfOne = 1_000_000

/** A set of signatures by the first eight bytes of each: enough to tell apart the outputs of an HMAC. */
class Signatures {
  size = 0
  #slots = new Uint32Array(2 * 32)

  /** False where it was in already. @param signature hexadecimal */
  add(signature: string): boolean {
    // An empty slot is two zeros.
    const high = Number.parseInt(signature.slice(0, 8), 16) || 1
    const low = Number.parseInt(signature.slice(8, 16), 16)
    if (this.size * 4 >= this.#slots.length) this.#grow()
    if (!put(this.#slots, high, low)) return false
    this.size += 1
    return true
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Uint32Array(old.length * 2)
    for (let i = 0; i < old.length; i += 2) if (old[i] !== 0) put(this.#slots, old[i]!, old[i + 1]!)
  }
}

/** Open addressing with linear probing; at most half of the slots are taken. */
function put(slots: Uint32Array, high: number, low: number): boolean {
  const mask = slots.length / 2 - 1
  for (let slot = low & mask; ; slot = (slot + 1) & mask) {
    const at = slot * 2
    if (slots[at] === high && slots[at + 1] === low) return false
    if (slots[at] !== 0) continue
    slots[at] = high
    slots[at + 1] = low
    return true
  }
}

export interface Seen {
  readonly accessKeyId: string
  /** Hexadecimal. */
  readonly signature: string
  /** Wall milliseconds. */
  readonly signedAt: number
}

/** `new` is remembered now; `forgotten` is so old that it might have been seen; `full` is one too many. */
export type Sight = 'new' | 'seen' | 'forgotten' | 'full'

/**
 * The signatures of a process's accepted requests, for as long as their clock window lasts, so that none counts twice.
 * They are kept by the minute they were made in and by key, so that no key's signatures get in the way of another's.
 * What ended with the process, or came to another server, is not known here.
 */
export class Replays {
  readonly #minutes = new Map<number, Map<string, Signatures>>()
  readonly #most: { readonly inAll: number; readonly ofOne: number }
  #size = 0
  /** The last minute of which all was forgotten: a clock that is set back must not bring it back. */
  #forgotten = Number.NEGATIVE_INFINITY

  constructor(most = { inAll: mostInAll, ofOne: mostOfOne }) {
    this.#most = most
  }

  /** Signatures remembered. */
  get size(): number {
    return this.#size
  }

  /**
   * Remembers a signature that was verified. @param now wall milliseconds
   * @param windowMs how long after `signedAt` it is good
   */
  see({ accessKeyId, signature, signedAt }: Seen, now: number, windowMs: number): Sight {
    this.#forget(now, windowMs)
    const minute = Math.floor(signedAt / minuteMs)
    if (minute <= this.#forgotten) return 'forgotten'
    const keys = this.#minutes.get(minute) ?? new Map<string, Signatures>()
    const signatures = keys.get(accessKeyId) ?? new Signatures()
    const full = this.#size >= this.#most.inAll || this.#sizeOf(accessKeyId) >= this.#most.ofOne
    if (full) return 'full'
    if (!signatures.add(signature)) return 'seen'
    this.#size += 1
    keys.set(accessKeyId, signatures)
    this.#minutes.set(minute, keys)
    return 'new'
  }

  #sizeOf(accessKeyId: string): number {
    let size = 0
    for (const keys of this.#minutes.values()) size += keys.get(accessKeyId)?.size ?? 0
    return size
  }

  #forget(now: number, windowMs: number): void {
    for (const [minute, keys] of this.#minutes) {
      if ((minute + 1) * minuteMs + windowMs >= now) continue
      for (const { size } of keys.values()) this.#size -= size
      this.#minutes.delete(minute)
      if (minute > this.#forgotten) this.#forgotten = minute
    }
  }
}
