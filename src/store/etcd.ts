import { randomUUID } from 'node:crypto'
import { type Clock, systemClock } from '../lib/clock.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { type Log, silentLog } from '../lib/log.ts'
import { type EtcdAccess, EtcdClient, type IRequestOp } from './etcd-client.ts'
import { apiError, type CallTimes, callTimes, EtcdCluster, type Forget } from './etcd-cluster.ts'
import { failureOf } from './etcd-errors.ts'
import { HistoryBudget, type HistoryLimits } from './etcd-history.ts'
import { EtcdKeys } from './etcd-keys.ts'
import { EtcdLists } from './etcd-list.ts'
import { EtcdReplaced, type EtcdSeen } from './etcd-seen.ts'
import { type SilenceTimes, silenceTimes } from './etcd-stream.ts'
import { EtcdWatches } from './etcd-watches.ts'
import { EtcdWrites, modIs } from './etcd-writes.ts'
import type { Kv, KvCondition, KvEntry, KvEvent, KvList, KvListOptions, WatchProgress } from './kv.ts'

export interface EtcdOptions extends EtcdAccess {
  /** Such as `http://10.0.0.1:2379`, all with the same scheme. */
  readonly endpoints: readonly string[]
  /** Under which everything is kept: `/plasmavmc`. */
  readonly prefix?: string
  /** What etcd keeps of the past. */
  readonly history?: Partial<HistoryLimits>
  /** Revisions after which slots that nobody has used are removed. */
  readonly sweepAfter?: bigint
  readonly times?: Partial<CallTimes & SilenceTimes>
  /** What another process has seen of it. */
  readonly seen?: EtcdSeen
  /** Until when what is seen here counts; for ever where absent. `anchor` is a key of the store. */
  readonly forget?: Forget
  readonly clock?: Clock
  readonly log?: Log
  /** 0 to 1; which endpoint comes first, so that many servers spread over them. */
  readonly random?: () => number
  /** A name that no other process has or had. */
  readonly newId?: () => string
}

export interface EtcdKv extends Kv {
  /** Which etcd it is, and the highest revision that was seen. */
  readonly seen: EtcdSeen
  /**
   * Asks it for a sign of life: a read that every answer of it depends on, and a write where the last one found no room.
   * @param timeoutMs until it has none, whatever was tried
   * @throws ApiError `ServiceUnavailable` that says why
   */
  probe(timeoutMs: number): Promise<void>
  /** Resolves when no clean-up of the history is under way. */
  settled(): Promise<void>
  /** Watches that are open and shared by readers. */
  readonly watches: number
}

const defaultPrefix = '/plasmavmc'

/** etcd's quota is 2 GiB by default, objects that are alive come on top of this. */
const defaultLimits: HistoryLimits = { limit: 100_000, bytes: 256 * 1024 * 1024 }

/** What each watch keeps for readers that come later or are slow; what is older they get from etcd. */
const keptEvents = 2_000
const keptBytes = 16 * 1024 * 1024

/** A process that is gone leaves its slots. After so many revisions none of its writes can be under way. */
const defaultSweepAfter = 1_000_000n
const sweepAtOnce = 500

/**
 * A store in etcd 3.4 or newer, shared by any number of processes.
 * @throws PlasmaError `StoreUnusable` where it can't be reached, or does not let us in; EtcdReplaced where it is not the
 *   one that was seen
 */
export async function openEtcd(options: EtcdOptions): Promise<EtcdKv> {
  const { endpoints, clock = systemClock, log = silentLog, random = Math.random } = options
  const { seen, forget } = options
  const keys = new EtcdKeys(options.prefix ?? defaultPrefix)
  const where = `etcd at ${endpoints.join(', ')}`
  let clients: EtcdClient[]
  try {
    clients = endpoints.map((endpoint) => new EtcdClient(endpoint, options, clock))
  } catch (error) {
    const hint = 'are --etcd-ca, --etcd-cert and --etcd-key PEM files that belong together?'
    throw new PlasmaError('StoreUnusable', `${where} can't be used: ${messageOf(error)}`, {
      hint,
      cause: error,
    })
  }
  const first = Math.min(endpoints.length - 1, Math.floor(random() * endpoints.length))
  const cluster = new EtcdCluster(clients, {
    ...{ clock, log, first, probe: keys.of(''), times: { ...callTimes, ...options.times } },
    memory: {
      ...(seen && { seen }),
      ...(forget && { forget: { ...forget, anchor: keys.of(forget.anchor).toString() } }),
    },
  })
  try {
    await cluster.read((client, timeoutMs) => client.range({ key: keys.of('') }, timeoutMs))
  } catch (error) {
    cluster.close()
    if (error instanceof EtcdReplaced) throw error
    const shown = apiError(error, "can't be read") as PlasmaError
    const { hint } = shown
    throw new PlasmaError('StoreUnusable', `${where} can't be used: ${messageOf(shown)}`, {
      ...(hint !== undefined && { hint }),
      cause: error,
    })
  }
  return new EtcdStore(cluster, keys, options, log)
}

class EtcdStore implements EtcdKv {
  readonly #cluster: EtcdCluster
  readonly #keys: EtcdKeys
  readonly #writes: EtcdWrites
  readonly #lists: EtcdLists
  readonly #watches: EtcdWatches
  readonly #budget: HistoryBudget
  readonly #sweepAfter: bigint
  readonly #log: Log
  #compaction: Promise<void> = Promise.resolve()
  #compacting = false

  constructor(cluster: EtcdCluster, keys: EtcdKeys, options: EtcdOptions, log: Log) {
    const { newId = randomUUID, times } = options
    const history = { ...defaultLimits, ...options.history }
    this.#cluster = cluster
    this.#keys = keys
    this.#log = log
    this.#sweepAfter = options.sweepAfter ?? defaultSweepAfter
    this.#writes = new EtcdWrites(cluster, `${keys.writes}${newId()}/`)
    this.#lists = new EtcdLists(cluster, keys)
    this.#watches = new EtcdWatches({
      ...{ cluster, keys, log, silence: { ...silenceTimes, ...times } },
      kept: { events: Math.min(keptEvents, history.limit), bytes: Math.min(keptBytes, history.bytes) },
    })
    this.#budget = new HistoryBudget(history, cluster.revision)
  }

  get watches(): number {
    return this.#watches.size
  }

  get seen(): EtcdSeen {
    const { seen } = this.#cluster
    // It has answered before it was given to anybody.
    if (!seen) throw new Error('etcd has not answered yet')
    return seen
  }

  async probe(timeoutMs: number): Promise<void> {
    const deadline = this.#cluster.clock.elapsed() + timeoutMs
    const request = { key: this.#keys.of(''), count_only: true }
    try {
      await this.#cluster.read((client, leftMs) => client.range(request, leftMs), deadline)
    } catch (error) {
      throw apiError(error, "can't be read")
    }
    await this.#writes.probe()
  }

  async get(key: string): Promise<KvEntry | undefined> {
    const request = { key: this.#keys.of(key) }
    try {
      const { kvs } = await this.#cluster.read((client, timeoutMs) => client.range(request, timeoutMs))
      const entry = kvs[0] && this.#keys.entry(kvs[0])
      if (entry) this.#cluster.sawWrite({ ...entry, key: request.key.toString() })
      return entry
    } catch (error) {
      throw apiError(error, "can't be read")
    }
  }

  list(prefix: string, options: KvListOptions = {}): Promise<KvList> {
    return this.#lists.list(prefix, options)
  }

  async put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    const [place, bytes] = [this.#keys.of(key), Buffer.from(value)]
    const change = { request_put: { key: place, value: bytes } }
    const conditions = [{ key, revision: expected }, ...(also ? [also] : [])]
    const revision = await this.#write(key, conditions, change, bytes.length)
    if (revision !== undefined) this.#cluster.sawWrite({ key: place.toString(), value, revision })
    return revision
  }

  async delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    if (expected === 0n) return undefined
    const change = { request_delete_range: { key: this.#keys.of(key) } }
    return this.#write(key, [{ key, revision: expected }, ...(also ? [also] : [])], change, 0)
  }

  watch(prefix: string, from: bigint, signal: AbortSignal, progress?: WatchProgress): AsyncIterable<KvEvent> {
    return this.#watches.watch(prefix, from, signal, progress)
  }

  settled(): Promise<void> {
    return this.#compaction
  }

  async close(): Promise<void> {
    this.#cluster.close()
    await this.#compaction
  }

  async #write(
    key: string,
    conditions: readonly KvCondition[],
    change: IRequestOp,
    bytes: number,
  ): Promise<bigint | undefined> {
    const compare = conditions.map((one) => modIs(this.#keys.of(one.key), one.revision))
    const revision = await this.#writes.write(compare, change, key)
    if (revision === undefined) return undefined
    // Twice: what was there before stays in the history as well.
    const upTo = this.#budget.wrote(revision, (key.length + bytes) * 2)
    if (upTo !== undefined && !this.#compacting) this.#compaction = this.#compact(upTo)
    return revision
  }

  /** etcd keeps all of the past unless it is told otherwise. Several processes may do so at once. */
  async #compact(upTo: bigint): Promise<void> {
    this.#compacting = true
    try {
      await this.#cluster.current.compact(upTo, callTimes.attemptMs).catch((error: unknown) => {
        if (failureOf(error).kind !== 'compacted') throw error
      })
      if (upTo > this.#sweepAfter) await this.#sweep(upTo - this.#sweepAfter)
    } catch (error) {
      this.#log.warn('etcd: the history was not compacted', { upTo: `${upTo}`, message: messageOf(error) })
    } finally {
      this.#compacting = false
    }
  }

  /** Removes slots that nobody has written to since a revision. */
  async #sweep(before: bigint): Promise<void> {
    const place = this.#keys.writes
    const { kvs } = await this.#cluster.current.range(
      {
        ...{ key: Buffer.from(place), range_end: Buffer.from(`${place.slice(0, -1)}0`) },
        ...{ max_mod_revision: String(before), keys_only: true, limit: sweepAtOnce },
      },
      callTimes.attemptMs,
    )
    for (const { key, mod_revision } of kvs) {
      const compare = [modIs(key, BigInt(mod_revision))]
      const success = [{ request_delete_range: { key } }]
      await this.#cluster.current.txn({ compare, success, failure: [] }, callTimes.attemptMs)
    }
  }
}
