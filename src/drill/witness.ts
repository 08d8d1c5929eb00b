import { below, doubles, type Qemu } from './qemus.ts'

const everyMs = 40

/** Two QEMUs of one machine that were seen alive at one moment. */
export interface Twins {
  readonly uid: string
  readonly pids: readonly number[]
}

export interface Testimony {
  readonly looks: number
  /** The longest time between two looks, ms. */
  readonly longestMs: number
}

/**
 * Looks at the /proc of the whole machine, 25 times a second, for two QEMUs of one machine whose files lie below a
 * folder, on whichever hosts. It goes by processes, not by run states: a second QEMU that waits in prelaunch is a
 * mistake as well, and the one monitor of a QEMU is its agent's.
 */
export class Witness {
  readonly #find: () => Qemu[][]
  readonly #timer: NodeJS.Timeout
  readonly #seen = new Map<string, Twins>()
  #looks = 0
  #longestMs = 0
  #last = performance.now()

  constructor(folder: string, find: () => Qemu[][] = () => doubles(below(folder))) {
    this.#find = find
    this.#timer = setInterval(() => this.look(), everyMs)
  }

  look(): void {
    for (const twins of this.#find()) {
      const uid = twins[0]?.uid ?? ''
      if (!this.#seen.has(uid)) this.#seen.set(uid, { uid, pids: twins.map(({ pid }) => pid) })
    }
    const now = performance.now()
    this.#longestMs = Math.max(this.#longestMs, now - this.#last)
    this.#last = now
    this.#looks += 1
  }

  /** What it saw since it was asked last, a machine once; and it looks once more. */
  takeTwins(): Twins[] {
    this.look()
    const seen = [...this.#seen.values()]
    this.#seen.clear()
    return seen
  }

  close(): Testimony {
    clearInterval(this.#timer)
    return { looks: this.#looks, longestMs: Math.round(this.#longestMs) }
  }
}
