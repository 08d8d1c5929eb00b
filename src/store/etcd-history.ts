/** How much of the past etcd is to keep: revisions, and bytes that this process has written. */
export interface HistoryLimits {
  readonly limit: number
  readonly bytes: number
}

interface Mark {
  readonly revision: bigint
  weight: number
}

/** Marks a limit is divided into; more only cost memory. */
const grains = 64

/** Decides up to which revision etcd's history can go: pure, fed with revisions as they come. */
export class HistoryBudget {
  readonly #limits: HistoryLimits
  readonly #marks: Mark[] = []
  #oldest: bigint
  #weight = 0

  /** Nothing before `oldest` is asked to go. */
  constructor(limits: HistoryLimits, oldest: bigint) {
    this.#limits = limits
    this.#oldest = oldest
  }

  /**
   * A write of this many bytes came to this revision.
   * @returns the revision to compact up to, where there is more than twice what may be kept, or more bytes
   */
  wrote(revision: bigint, bytes: number): bigint | undefined {
    const last = this.#marks.at(-1)
    if (last && last.weight + bytes < this.#limits.bytes / grains) {
      this.#marks[this.#marks.length - 1] = { revision, weight: last.weight + bytes }
    } else this.#marks.push({ revision, weight: bytes })
    this.#weight += bytes
    const limit = BigInt(this.#limits.limit)
    let to = revision - this.#oldest >= limit * 2n ? revision - limit : 0n
    if (this.#weight > this.#limits.bytes) {
      while (this.#marks.length > 0 && this.#weight > this.#limits.bytes / 2) {
        const gone = this.#marks.shift() as Mark
        this.#weight -= gone.weight
        if (gone.revision > to) to = gone.revision
      }
    }
    if (to <= this.#oldest) return undefined
    while (this.#marks[0] && this.#marks[0].revision <= to)
      this.#weight -= (this.#marks.shift() as Mark).weight
    this.#oldest = to
    return to
  }
}
