import { type Clock, sleep } from '../../lib/clock.ts'
import { withDeadline } from '../../lib/deadline.ts'
import { messageOf } from '../../lib/errors.ts'
import type { Log } from '../../lib/log.ts'
import { type Meter, unmetered } from '../../lib/measures.ts'
import { systemNamespace } from '../../resources/host-lease.ts'
import { Lease } from '../../resources/kinds.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { countRenewals, silences } from './measured.ts'
import { type Read, slowReadMs, type Watched, watched } from './sight.ts'

const everyMs = 1_000

/**
 * Watches how long hosts' leases are silent, by reads of the store, never by its watch, which may lag. Every server
 * that may lead runs one all the time, so that a new leader need not begin to count.
 */
export class LeaseWatch {
  readonly #objects: ObjectStore
  readonly #clock: Clock
  readonly #log: Log
  readonly #meter: Meter
  readonly #listeners = new Set<() => void>()
  #watched: Watched | undefined
  #looking: Promise<void> = Promise.resolve()

  constructor(objects: ObjectStore, clock: Clock, log: Log, meter: Meter = unmetered) {
    this.#objects = objects
    this.#clock = clock
    this.#log = log
    this.#meter = meter
    meter.gauge('plasmavmc_host_lease_silence_seconds', () => silences(this.#watched))
  }

  /** What is known; undefined while nothing may be judged. */
  get watched(): Watched | undefined {
    return this.#watched
  }

  /** Called after each read. @returns unsubscribe */
  onLook(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** One more read now; never rejects. Reads never overlap. */
  look(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#look())
    return this.#looking
  }

  /** Looks each second until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.look()
      await sleep(this.#clock, everyMs, signal).catch(() => {})
    }
  }

  async #look(): Promise<void> {
    const before = this.#watched
    this.#watched = watched(before, await this.#read())
    countRenewals(before, this.#watched, this.#meter)
    if (before && this.#watched?.begunAt !== before.begunAt)
      this.#log.warn('the silence of hosts is judged anew', {
        because: 'a look failed, was slow, or came late',
      })
    for (const listener of this.#listeners) {
      try {
        listener()
      } catch (error) {
        this.#log.error('listener of leases failed', { err: error })
      }
    }
  }

  async #read(): Promise<Read | undefined> {
    const clock = this.#clock
    const startedAt = clock.elapsed()
    try {
      const list = () => this.#objects.list(Lease, { namespace: systemNamespace })
      const { items } = await withDeadline(slowReadMs, 'reading the leases of hosts', list, { clock })
      return { startedAt, endedAt: clock.elapsed(), leases: items }
    } catch (error) {
      this.#log.warn('leases of hosts not read', { message: messageOf(error) })
      return undefined
    }
  }
}
