import type { ICompare, IRequestOp, ITxnResponse } from './etcd-client.ts'
import { apiError, type EtcdCluster } from './etcd-cluster.ts'
import { EtcdFailure, outcomeUnknown, unavailable } from './etcd-errors.ts'

/** Writes under way at once; more wait for their turn. */
const maxSlots = 128
/** Times the deadline of a call that a write waits for its turn, however many come before it. */
const longestWait = 6

/**
 * A key of this process that every write changes along with its own. It tells afterwards whether a write happened, and
 * once it has changed a write that is still under way can't happen any more.
 */
interface Slot {
  readonly key: Buffer
  /** Its mod revision as far as we know; 0: it does not exist. */
  revision: bigint
  /** A write or a fence that nobody waits for any more may still be executed, until the slot moves. */
  open: boolean
}

type Outcome = { readonly written: bigint } | 'not-met' | 'again'

/**
 * Conditional writes whose outcome is known wherever etcd can be asked again, as docs/adr/0006-etcd.md explains.
 */
export class EtcdWrites {
  readonly #cluster: EtcdCluster
  /** Where slots are kept: unique to this process. */
  readonly #place: string
  readonly #free: Slot[] = []
  readonly #waiting = new Set<() => void>()
  /** Monotonic time of the last answer. */
  #answeredAt = 0
  #made = 0
  #attempts = 0
  #isFull = false

  constructor(cluster: EtcdCluster, place: string) {
    this.#cluster = cluster
    this.#place = place
  }

  /**
   * Where etcd had no room for the last write, and reads go on: writes something, to find out whether it has by now.
   * @throws ApiError `ServiceUnavailable` where it has not
   */
  async probe(): Promise<void> {
    if (!this.#isFull) return
    const change = put(Buffer.from(`${this.#place}probe`), '')
    await this.write([], change, 'a key that tells whether there is room')
  }

  /**
   * Does `change` if all of `conditions` hold.
   * @returns its revision, or undefined where the condition does not hold and nothing was written
   * @throws ApiError `ServiceUnavailable`, which says so where the outcome is not known; `RequestEntityTooLarge`
   */
  async write(
    conditions: readonly ICompare[],
    change: IRequestOp,
    name: string,
  ): Promise<bigint | undefined> {
    const slot = await this.#take()
    const deadline = this.#cluster.deadline()
    try {
      for (let tries = 0; ; tries += 1) {
        const outcome = await this.#attempt(slot, conditions, change, name, deadline)
        if (outcome === 'not-met') return undefined
        if (outcome !== 'again') return outcome.written
        await this.#cluster.pause(tries)
      }
    } finally {
      this.#give(slot)
    }
  }

  async #attempt(
    slot: Slot,
    conditions: readonly ICompare[],
    change: IRequestOp,
    name: string,
    deadline: number,
  ): Promise<Outcome> {
    const left = this.#cluster.left(deadline)
    if (left <= 0) throw unavailable(`etcd can't be written: ${name} was not, within its deadline`)
    const mark = `w${++this.#attempts}`
    const request = {
      compare: [...conditions, modIs(slot.key, slot.revision)],
      success: [change, put(slot.key, mark)],
      failure: [{ request_range: { key: slot.key, keys_only: true } }],
    }
    try {
      const answer = await this.#cluster.once(
        this.#cluster.current,
        (client, timeoutMs) => client.txn(request, timeoutMs),
        left,
      )
      this.#answeredAt = this.#cluster.clock.elapsed()
      this.#isFull = false
      return answered(answer, slot)
    } catch (error) {
      const failure = error instanceof EtcdFailure ? error : undefined
      if (failure && failure.kind !== 'unknown') {
        if (failure.transient) return 'again'
        this.#isFull = failure.kind === 'no-space'
        throw apiError(failure, "can't be written")
      }
      slot.open = true
      // The answer of an etcd that is refused: it may have written, but nobody relies on it any more.
      if (!failure) throw error
      return this.#settle(slot, mark, name, deadline)
    }
  }

  /** After a write that etcd did not answer: whether it happened. */
  async #settle(slot: Slot, mark: string, name: string, deadline: number): Promise<Outcome> {
    try {
      const written = await this.#fence(slot, mark, deadline)
      return written === undefined ? 'again' : { written }
    } catch (error) {
      throw outcomeUnknown(name, error)
    }
  }

  /**
   * Changes the slot unless the write marked `mark` already has, so that no earlier write can happen any more.
   * @returns the revision of that write where it happened
   * @throws whatever kept etcd from being asked
   */
  async #fence(slot: Slot, mark: string, deadline: number): Promise<bigint | undefined> {
    const fence = `f${++this.#attempts}`
    const request = {
      compare: [modIs(slot.key, slot.revision)],
      success: [put(slot.key, fence)],
      failure: [{ request_range: { key: slot.key } }],
    }
    // Safe to repeat: whichever of them came first is found by its mark.
    const answer = await this.#cluster.read((client, timeoutMs) => client.txn(request, timeoutMs), deadline)
    const found = answer.responses[0]?.response_range?.kvs[0]
    if (!answer.succeeded && !found) throw new Error('etcd has lost its trace')
    moved(slot, answer.succeeded ? BigInt(answer.header.revision) : BigInt(found?.mod_revision ?? 0))
    return found?.value.toString() === mark ? slot.revision : undefined
  }

  async #take(): Promise<Slot> {
    for (const began = this.#cluster.clock.elapsed(); ; ) {
      this.#cluster.check()
      // Those with something under way go first: the sooner they move the better.
      const open = this.#free.findIndex((slot) => slot.open)
      const [slot] = open < 0 ? [this.#free.pop()] : this.#free.splice(open, 1)
      if (slot) return slot
      if (this.#made < maxSlots) {
        const key = Buffer.from(`${this.#place}${this.#made++}`)
        return { key, revision: 0n, open: false }
      }
      await this.#turn(began)
    }
  }

  /** Resolves when a slot is free. As long as etcd answers, many may wait long. @throws ApiError `ServiceUnavailable` */
  async #turn(began: number): Promise<void> {
    const { clock, callMs } = this.#cluster
    for (;;) {
      const now = clock.elapsed()
      const until = Math.min(Math.max(began, this.#answeredAt) + callMs, began + callMs * longestWait)
      if (now >= until) {
        const why = `${maxSlots} writes are under way, and none ended in time`
        throw unavailable(`etcd can't be written: ${why}`)
      }
      const { promise, resolve } = Promise.withResolvers<boolean>()
      const turn = () => resolve(true)
      const cancel = clock.after(until - now, () => resolve(false))
      this.#waiting.add(turn)
      const mine = await promise
      this.#waiting.delete(turn)
      cancel()
      if (mine) return
    }
  }

  #give(slot: Slot): void {
    this.#free.push(slot)
    const [first] = this.#waiting
    if (!first) return
    this.#waiting.delete(first)
    first()
  }
}

/** Sets a slot to where it is: nothing that was sent while it was elsewhere can be executed any more. */
function moved(slot: Slot, revision: bigint): void {
  if (slot.revision !== revision) slot.open = false
  slot.revision = revision
}

/** What an answer to a write says. */
function answered(answer: ITxnResponse, slot: Slot): Outcome {
  if (answer.succeeded) {
    const written = BigInt(answer.header.revision)
    moved(slot, written)
    return { written }
  }
  const own = BigInt(answer.responses[0]?.response_range?.kvs[0]?.mod_revision ?? 0)
  // Where the slot has moved, by an earlier write or a sweep, nothing is known of the key.
  const outcome = own === slot.revision ? 'not-met' : 'again'
  moved(slot, own)
  return outcome
}

/** etcd's numbers: compare target MOD, result EQUAL. */
export function modIs(key: Buffer, revision: bigint): ICompare {
  return { target: 2, result: 0, key, mod_revision: String(revision) }
}

function put(key: Buffer, value: string): IRequestOp {
  return { request_put: { key, value: Buffer.from(value) } }
}
