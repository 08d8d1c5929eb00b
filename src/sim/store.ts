import { ApiError } from '../store/errors.ts'
import type { Kv, KvCondition, KvEntry, KvEvent, KvList, KvListOptions } from '../store/kv.ts'
import { MemoryKv } from '../store/memory.ts'
import type { SimProcess, Timeline } from './clock.ts'
import { type Net, storeNode } from './net.ts'

/** What a process asks of the store, as faults and rules see it. */
export interface StoreCall {
  readonly from: string
  readonly process: SimProcess
  readonly op: 'get' | 'list' | 'put' | 'delete'
  readonly key: string
}

/** Called for every write that is made, with the process that asked for it; undefined stands for a person. */
export type WriteListener = (event: KvEvent, by: SimProcess | undefined) => void

/** How long a client waits for an answer, ms: `callTimes.callMs` of the client of etcd. */
const callMs = 5_000
/** After this long without a word a watch over a broken link ends, ms. */
const keepaliveMs = 6_000

/** The store of a simulated world: one history for all, reached over the network. */
export class SimStore {
  readonly kv = new MemoryKv()
  /** Every write that was made, oldest first. */
  readonly events: KvEvent[] = []
  readonly #timeline: Timeline
  readonly #net: Net
  readonly #connections = new Set<Connection>()
  readonly #listeners = new Set<WriteListener>()
  /** A mistake, for tests. */
  blindWrites = false
  #available: 'yes' | 'silent' | 'refuses' = 'yes'
  /** Told right before a call is sent and right before its answer is taken: the moments at which a process may stop. */
  intercept: (call: StoreCall, phase: 'send' | 'answer') => void = () => {}

  constructor(timeline: Timeline, net: Net) {
    this.#timeline = timeline
    this.#net = net
  }

  get available(): boolean {
    return this.#available === 'yes'
  }

  /** Takes the store's quorum away, or gives it back. Without one calls get no answer, or an error. */
  setAvailable(how: 'yes' | 'silent' | 'refuses'): void {
    this.#available = how
  }

  get refuses(): boolean {
    return this.#available === 'refuses'
  }

  onWrite(listener: WriteListener): void {
    this.#listeners.add(listener)
  }

  /** The store as one process on one node sees it. */
  client(node: string, process: SimProcess): Kv {
    const connection = new Connection(node, process, this, this.#net, this.#timeline)
    this.#connections.add(connection)
    return new RemoteKv(connection, this, this.#net)
  }

  /** The store without any network before it. */
  direct(): Kv {
    const { kv } = this
    return {
      get: (key) => kv.get(key),
      list: (prefix, options) => kv.list(prefix, options),
      put: (key, value, expected, also) => this.put(undefined, key, value, expected, also),
      delete: (key, expected, also) => this.delete(undefined, key, expected, also),
      watch: (prefix, from, signal, progress) => kv.watch(prefix, from, signal, progress),
      close: async () => {},
    }
  }

  /** Ends every watch, as a compaction or a restarted member does: whoever watches lists anew. */
  breakWatches(): void {
    for (const connection of this.#connections) connection.break()
  }

  /** A write as the store makes it; whoever watches is told. */
  async put(
    by: SimProcess | undefined,
    key: string,
    value: string,
    expected: bigint,
    also?: KvCondition,
  ): Promise<bigint | undefined> {
    const previous = await this.kv.get(key)
    const revision = await (this.blindWrites
      ? this.kv.put(key, value, previous?.revision ?? 0n)
      : this.kv.put(key, value, expected, also))
    if (revision === undefined) return undefined
    const before = previous && { previous: { value: previous.value, revision: previous.revision } }
    this.#publish({ type: 'put', key, value, revision, ...before }, by)
    return revision
  }

  async delete(
    by: SimProcess | undefined,
    key: string,
    expected: bigint,
    also?: KvCondition,
  ): Promise<bigint | undefined> {
    const previous = await this.kv.get(key)
    const revision = await this.kv.delete(key, expected, also)
    if (revision === undefined || !previous) return undefined
    const { value, revision: since } = previous
    this.#publish({ type: 'delete', key, revision, previous: { value, revision: since } }, by)
    return revision
  }

  #publish(event: KvEvent, by: SimProcess | undefined): void {
    this.events.push(event)
    for (const listener of this.#listeners) listener(event, by)
    for (const connection of this.#connections) {
      if (connection.process.alive) connection.offer(event)
      else this.#connections.delete(connection)
    }
  }
}

interface Watcher {
  readonly prefix: string
  readonly pending: KvEvent[]
  upTo: bigint
  error: ApiError | undefined
  wake: () => void
}

function unavailable(why: string): ApiError {
  return new ApiError('ServiceUnavailable', `the store can't be reached: ${why}`)
}

/** The watches of one process: what is told over them keeps its order, waits while the link is broken, and ends in time. */
class Connection {
  readonly node: string
  readonly process: SimProcess
  readonly #store: SimStore
  readonly #net: Net
  readonly #timeline: Timeline
  readonly #watchers = new Set<Watcher>()
  #held: KvEvent[] = []
  #lastAt = 0
  #waits = false

  constructor(node: string, process: SimProcess, store: SimStore, net: Net, timeline: Timeline) {
    this.node = node
    this.process = process
    this.#store = store
    this.#net = net
    this.#timeline = timeline
  }

  #isCut(): boolean {
    return this.#net.how(storeNode, this.node) !== undefined
  }

  offer(event: KvEvent): void {
    if (this.#watchers.size === 0) return
    if (this.#isCut() || this.#waits) return this.#hold(event)
    if (![...this.#watchers].some(({ prefix }) => event.key.startsWith(prefix))) return
    this.#lastAt = Math.max(this.#lastAt, this.#timeline.now + this.#net.delay(storeNode, this.node))
    this.#timeline.at(this.#lastAt, () => this.process.deliver(() => this.#take(event)))
  }

  #take(event: KvEvent): void {
    for (const watcher of this.#watchers) give(watcher, event)
  }

  /** A broken link keeps what is to be told; mended in time it is told, otherwise the watches end. */
  #hold(event: KvEvent): void {
    this.#held.push(event)
    if (this.#waits) return
    this.#waits = true
    const done = () => {
      stop()
      cancel()
      this.#waits = false
      const held = this.#held
      this.#held = []
      return held
    }
    const stop = this.#net.onHealed(() => {
      if (this.#isCut()) return
      for (const one of done()) this.offer(one)
    })
    const cancel = this.#timeline.after(keepaliveMs, () => {
      done()
      this.break()
    })
  }

  break(): void {
    this.process.deliver(() => {
      for (const watcher of this.#watchers) {
        watcher.error = unavailable('the watch was broken')
        watcher.wake()
      }
    })
  }

  /** Resolves when the store has heard of a new watch. @throws ApiError `ServiceUnavailable` where it does not */
  #open(): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = this.process.clock.after(callMs, () => reject(unavailable('no answer to a watch')))
      this.#net.send(this.node, storeNode, () => {
        if (!this.#store.available) return
        this.#net.send(storeNode, this.node, () =>
          this.process.deliver(() => {
            cancel()
            resolve()
          }),
        )
      })
    })
  }

  async *watch(prefix: string, from: bigint, signal: AbortSignal): AsyncGenerator<KvEvent> {
    await this.#open()
    const watcher: Watcher = { prefix, pending: [], upTo: from, error: undefined, wake() {} }
    for (const event of this.#store.events) if (event.revision > from) give(watcher, event)
    this.#watchers.add(watcher)
    const onAbort = () => watcher.wake()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      while (!signal.aborted) {
        for (let event = watcher.pending.shift(); event; event = watcher.pending.shift()) {
          yield event
          if (signal.aborted) return
        }
        if (watcher.error) throw watcher.error
        const woken = Promise.withResolvers<void>()
        watcher.wake = woken.resolve
        await woken.promise
      }
    } finally {
      this.#watchers.delete(watcher)
      signal.removeEventListener('abort', onAbort)
    }
  }
}

function give(watcher: Watcher, event: KvEvent): void {
  if (event.revision <= watcher.upTo) return
  watcher.upTo = event.revision
  if (!event.key.startsWith(watcher.prefix)) return
  watcher.pending.push(event)
  watcher.wake()
}

class RemoteKv implements Kv {
  readonly #connection: Connection
  readonly #store: SimStore
  readonly #net: Net

  constructor(connection: Connection, store: SimStore, net: Net) {
    this.#connection = connection
    this.#store = store
    this.#net = net
  }

  get(key: string): Promise<KvEntry | undefined> {
    return this.#call('get', key, () => this.#store.kv.get(key))
  }

  list(prefix: string, options?: KvListOptions): Promise<KvList> {
    return this.#call('list', prefix, () => this.#store.kv.list(prefix, options))
  }

  put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    return this.#call('put', key, () => this.#store.put(this.#connection.process, key, value, expected, also))
  }

  delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    return this.#call('delete', key, () => this.#store.delete(this.#connection.process, key, expected, also))
  }

  watch(prefix: string, from: bigint, signal: AbortSignal): AsyncIterable<KvEvent> {
    return this.#connection.watch(prefix, from, signal)
  }

  async close(): Promise<void> {}

  /** A request and its answer: either may be lost, and a request that was sent is executed whenever it arrives. */
  #call<T>(op: StoreCall['op'], key: string, execute: () => Promise<T>): Promise<T> {
    const { node, process } = this.#connection
    const call = { from: node, process, op, key }
    return new Promise((resolve, reject) => {
      const fail = (why: string) => reject(unavailable(why))
      const cancel = process.clock.after(callMs, () => fail(`no answer within ${callMs} ms`))
      const end = (ended: () => void) => {
        this.#store.intercept(call, 'answer')
        process.deliver(() => {
          cancel()
          ended()
        })
      }
      const answer = (ended: () => void) =>
        this.#net.send(storeNode, node, () => process.deliver(() => end(ended)))
      const arrive = () => {
        if (this.#store.refuses) return answer(() => fail('etcdserver: no leader'))
        if (!this.#store.available) return
        execute().then(
          (result) => answer(() => resolve(result)),
          (error: unknown) => answer(() => reject(error)),
        )
      }
      this.#store.intercept(call, 'send')
      process.deliver(() => {
        if (this.#net.how(node, storeNode) !== 'refuse') return this.#net.send(node, storeNode, arrive)
        process.clock.after(1, () => end(() => fail('connection refused')))
      })
    })
  }
}
