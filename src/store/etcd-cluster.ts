import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { ApiError } from './errors.ts'
import type { EtcdClient, IResponseHeader } from './etcd-client.ts'
import { apiErrorOf, EtcdFailure, failureOf, unavailable } from './etcd-errors.ts'
import { contradicts, EtcdReplaced, type EtcdSeen, hashOf, misfit, type Witness } from './etcd-seen.ts'

/** Deadlines of calls, milliseconds. */
export interface CallTimes {
  /** Until an operation as a whole fails, whatever was tried. */
  readonly callMs: number
  /** Until one endpoint is given up for the next. Longer than an election would be a wait for the dead. */
  readonly attemptMs: number
}

export const callTimes: CallTimes = { callMs: 5_000, attemptMs: 1_500 }

const pauseBaseMs = 50
const pauseCapMs = 500

/** Shorter than this is no attempt: it would only make an outcome unknown. */
const leastAttemptMs = 50

/** After so long without an answer, it may have been restored meanwhile. */
export const doubtMs = 3_000

interface Answer {
  readonly header: IResponseHeader
}

/** A write, its key as etcd has it. */
export interface SeenWrite {
  readonly key: string
  readonly value: string
  readonly revision: bigint
}

/** What is remembered of an etcd, and for how long. */
export interface Memory {
  /** What another process has seen of it. */
  readonly seen?: EtcdSeen
  /** Until when what is seen here counts; for ever where absent. */
  readonly forget?: Forget
}

/** After a time without an answer that fits, another etcd counts, or one that went back, if it is one of the same cluster. */
export interface Forget {
  readonly afterMs: number
  /** A key as etcd has it, whose value all stores of the cluster share: what was read of it last must be there. */
  readonly anchor: string
  /** Told when that one counts, before anything is read or written there. */
  readonly onReplaced?: () => void
}

export interface ClusterOptions {
  readonly clock: Clock
  readonly log: Log
  readonly times: CallTimes
  /** The endpoint that is used first. */
  readonly first: number
  /** A key that may be read, whether there is one or not: an endpoint is asked by it which etcd it is of. */
  readonly probe: Buffer
  readonly memory?: Memory
}

/**
 * The endpoints of one etcd as one: everybody uses the same endpoint until it fails, then the next. Refuses an etcd that
 * is another than it was, or that has forgotten what it acknowledged.
 */
export class EtcdCluster {
  readonly clock: Clock
  readonly #clients: readonly EtcdClient[]
  readonly #log: Log
  readonly #times: CallTimes
  readonly #forget: Forget | undefined
  readonly #probe: Buffer
  readonly #closed = new AbortController()
  #current: number
  #revision: bigint
  #id: string | undefined
  /** The last write that was seen here; before there is one, what another process has seen of the same etcd counts. */
  #write: SeenWrite | undefined
  #witness: Witness | undefined
  /** What was last read of the anchor. */
  #anchor: string | undefined
  /** Monotonic time of the last answer that fitted. */
  #fittedAt: number
  /** Whether any has in this life. */
  #hasFitted = false
  #broken: ApiError | undefined

  constructor(clients: readonly EtcdClient[], options: ClusterOptions) {
    const { clock, log, times, first, memory = {} } = options
    this.#clients = clients
    this.#probe = options.probe
    this.clock = clock
    this.#log = log
    this.#times = times
    this.#current = first
    this.#forget = memory.forget
    this.#revision = memory.seen?.revision ?? 0n
    this.#id = memory.seen?.clusterId
    this.#witness = memory.seen?.witness
    this.#fittedAt = memory.seen ? Number.NEGATIVE_INFINITY : clock.elapsed()
  }

  /** The highest revision that is known to exist. */
  get revision(): bigint {
    return this.#revision
  }

  /** What is known of it; undefined before it has answered. */
  get seen(): EtcdSeen | undefined {
    if (this.#id === undefined) return undefined
    const witness = this.#lastWitness()
    return { clusterId: this.#id, revision: this.#revision, ...(witness && { witness }) }
  }

  #lastWitness(): Witness | undefined {
    const write = this.#write
    if (!write) return this.#witness
    return { key: write.key, revision: write.revision, hash: hashOf(write.value) }
  }

  get current(): EtcdClient {
    return this.#clients[this.#current] as EtcdClient
  }

  /** Until an operation fails, milliseconds. */
  get callMs(): number {
    return this.#times.callMs
  }

  /** Monotonic time at which an operation that begins now must have ended. */
  deadline(): number {
    return this.clock.elapsed() + this.#times.callMs
  }

  /** The next endpoint takes over, unless one has already. */
  failed(client: EtcdClient, why: Error): void {
    if (client !== this.current || this.#clients.length === 1) return
    this.#current = (this.#current + 1) % this.#clients.length
    this.#log.warn('etcd: going on with another endpoint', {
      ...{ from: client.endpoint, to: this.current.endpoint, message: why.message },
    })
  }

  /** A revision that a watch told of. */
  saw(revision: bigint): void {
    if (revision > this.#revision) this.#revision = revision
  }

  /** A write that is there. */
  sawWrite(write: SeenWrite): void {
    if (write.key === this.#forget?.anchor) this.#anchor = write.value
    if (write.revision > (this.#write?.revision ?? 0n)) this.#write = write
    this.saw(write.revision)
  }

  /** Once, on one endpoint. @throws EtcdFailure; ApiError where this etcd is not to be used any more */
  async once<T extends Answer>(
    client: EtcdClient,
    work: (client: EtcdClient, timeoutMs: number) => Promise<T>,
    leftMs = this.#times.attemptMs,
  ): Promise<T> {
    this.check()
    const floor = this.#revision
    try {
      const answer = await work(client, Math.min(leftMs, this.#times.attemptMs))
      const why = this.#misfit(answer.header, floor) ?? (await this.#contradicted(client))
      if (why !== undefined) await this.#misfits(client, answer.header.cluster_id, why)
      this.#fits(answer.header)
      return answer
    } catch (error) {
      if (error instanceof ApiError) throw error
      const failure = failureOf(error)
      if (failure.transient) this.failed(client, failure)
      throw failure
    }
  }

  /**
   * Until the deadline, on one endpoint after the other; only for what may be executed more than once.
   * @throws EtcdFailure that is not transient; ApiError `ServiceUnavailable`
   */
  async read<T extends Answer>(
    work: (client: EtcdClient, timeoutMs: number) => Promise<T>,
    deadline = this.deadline(),
  ): Promise<T> {
    let last: unknown
    for (let tries = 0; ; tries += 1) {
      const left = this.left(deadline)
      if (left <= 0) throw unavailable(`etcd can't be read: ${messageOf(last)}`, last)
      try {
        return await this.once(this.current, work, left)
      } catch (error) {
        if (!(error instanceof EtcdFailure) || !error.transient) throw error
        last = error
      }
      await this.pause(tries)
    }
  }

  /** Milliseconds that are left for another attempt; 0 where that is none. */
  left(deadline: number): number {
    const left = deadline - this.clock.elapsed()
    return left < leastAttemptMs ? 0 : left
  }

  /** Between two attempts; longer once every endpoint has failed. Ends at once when the store is closed. */
  async pause(tries: number): Promise<void> {
    const rounds = Math.floor(tries / this.#clients.length)
    const ms = (tries + 1) % this.#clients.length === 0 ? pauseBaseMs * 2 ** Math.min(rounds, 5) : 0
    await sleep(this.clock, Math.min(ms, pauseCapMs), this.#closed.signal).catch(() => {})
  }

  /** @throws ApiError where this etcd is not to be used, now or any more */
  check(): void {
    if (this.#broken) throw this.#broken
    if (this.#closed.signal.aborted) throw unavailable('the store is closed')
  }

  get closed(): AbortSignal {
    return this.#closed.signal
  }

  close(): void {
    this.#closed.abort()
    for (const client of this.#clients) client.close()
  }

  /** What is wrong with a linearizable answer: `floor` is what existed when it was asked for. */
  #misfit({ cluster_id: clusterId, revision }: IResponseHeader, floor: bigint): string | undefined {
    const before = { clusterId: this.#id ?? clusterId, revision: floor }
    return misfit(before, { clusterId, revision: BigInt(revision) })
  }

  /**
   * After a silence: whether a write that was seen is not there any more. The revision alone may be as high again, by
   * what others wrote meanwhile.
   * @throws EtcdFailure where that can't be read now
   */
  async #contradicted(client: EtcdClient): Promise<string | undefined> {
    if (this.#forget || this.clock.elapsed() - this.#fittedAt < doubtMs) return undefined
    const witness = this.#lastWitness()
    if (!witness) return undefined
    const request = { key: Buffer.from(witness.key), revision: String(witness.revision) }
    try {
      const { kvs } = await client.range(request, this.#times.attemptMs)
      const [kv] = kvs
      return contradicts(witness, kv && { revision: BigInt(kv.mod_revision), value: kv.value.toString() })
    } catch (error) {
      const failure = failureOf(error)
      if (failure.transient) throw failure
      // Its history does not reach back so far, or we may not read there any more: then id and revision must do.
      const { message } = failure
      this.#log.info('etcd: what is remembered of its history can not be compared', { message })
      return undefined
    }
  }

  #fits(header: IResponseHeader): void {
    this.#id = header.cluster_id
    this.#fittedAt = this.clock.elapsed()
    this.#hasFitted = true
    this.saw(BigInt(header.revision))
  }

  /** @throws EtcdReplaced unless what is remembered does not count any more; EtcdFailure where another endpoint may be of that */
  async #misfits(client: EtcdClient, id: string, why: string): Promise<void> {
    const replaced = new EtcdReplaced(client.endpoint, why)
    const where = await this.#lookAround(client, id)
    if (where === 'stray') {
      this.failed(client, replaced)
      throw new EtcdFailure('unsent', replaced.message, { cause: replaced })
    }
    if (where === 'most' && this.#forget) return this.#forgets(replaced)
    if (!this.#forget) {
      this.#broken = replaced
      this.#log.error('etcd: refused', { message: replaced.message })
      throw replaced
    }
    const silentMs = this.clock.elapsed() - this.#fittedAt
    if (silentMs < this.#forget.afterMs || !(await this.#isAnchored(client, this.#forget))) {
      // Others may be endpoints of the one that is remembered.
      this.failed(client, replaced)
      throw replaced
    }
    this.#forgets(replaced)
    this.#forget.onReplaced?.()
  }

  #forgets({ message }: EtcdReplaced): void {
    const silentMs = this.#hasFitted ? Math.round(this.clock.elapsed() - this.#fittedAt) : undefined
    this.#log.warn('etcd: used as it is, after a time without any that fits', { message, silentMs })
    this.#revision = 0n
    this.#write = undefined
    this.#witness = undefined
  }

  /**
   * What an endpoint is that answers for another etcd than the one that is remembered. `most`: so do most of them, and
   * none for that one. `stray`: otherwise; a member that was started as a cluster of its own is such, and has nothing to
   * say. Undefined where it is decided without.
   */
  async #lookAround(client: EtcdClient, id: string): Promise<'stray' | 'most' | undefined> {
    // Who forgets goes on with the next endpoint by itself, once it knows one that fits.
    if (id === this.#id || this.#id === undefined || (this.#forget && this.#hasFitted)) return undefined
    const others = this.#clients.filter((one) => one !== client)
    const ids = await Promise.all(others.map((one) => this.#idOf(one)))
    const same = ids.filter((one) => one === id).length + 1
    return same * 2 > this.#clients.length && !ids.includes(this.#id) ? 'most' : 'stray'
  }

  async #idOf(client: EtcdClient): Promise<string | undefined> {
    try {
      return (await client.range({ key: this.#probe }, this.#times.attemptMs)).header.cluster_id
    } catch {
      return undefined
    }
  }

  async #isAnchored(client: EtcdClient, { anchor }: Forget): Promise<boolean> {
    const { kvs } = await client.range({ key: Buffer.from(anchor) }, this.#times.attemptMs)
    return this.#anchor !== undefined && kvs[0]?.value.toString() === this.#anchor
  }
}

/** The ApiError of whatever a call threw. */
export function apiError(error: unknown, doing: string): unknown {
  return error instanceof EtcdFailure ? apiErrorOf(error, doing) : error
}
