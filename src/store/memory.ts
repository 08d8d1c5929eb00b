import { Feed } from './feed.ts'
import { defaultHistory, historyChunk, pageOf, setBack, tooOld, undo, weightOf } from './history.ts'
import type { Kv, KvCondition, KvEntry, KvEvent, KvList, KvListOptions, WatchProgress } from './kv.ts'

/** A Kv in memory: the same semantics as the durable ones, gone with the process. Also the store of the tests. */
export class MemoryKv implements Kv {
  readonly #entries = new Map<string, KvEntry>()
  readonly #feed = new Feed()
  readonly #historyLimit: number
  readonly #historyBytes: number
  /** Every event after revision `#oldest`, without gaps. */
  #log: KvEvent[] = []
  #bytes = 0
  #revision = 0n
  #oldest = 0n

  constructor(options: { readonly historyLimit?: number; readonly historyBytes?: number } = {}) {
    this.#historyLimit = options.historyLimit ?? defaultHistory.limit
    this.#historyBytes = options.historyBytes ?? defaultHistory.bytes
  }

  async get(key: string): Promise<KvEntry | undefined> {
    return this.#entries.get(key)
  }

  async list(prefix: string, options: KvListOptions = {}): Promise<KvList> {
    const { after = '', limit, at = this.#revision } = options
    const were = undo(this.#since(at), prefix, after)
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix) && key > after).sort()
    const now = keys.map((key) => this.#entries.get(key) as KvEntry)
    const page = pageOf(setBack(now, were), limit, at)
    return page.more === undefined || were.size > 0
      ? page
      : { ...page, left: now.length - page.entries.length }
  }

  async put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    const before = this.#entries.get(key)
    if ((before?.revision ?? 0n) !== expected || !this.#holds(also)) return undefined
    const revision = ++this.#revision
    this.#entries.set(key, { key, value, revision })
    this.#append({ type: 'put', key, value, revision, ...(before && { previous: previousOf(before) }) })
    return revision
  }

  async delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    const before = this.#entries.get(key)
    if (!before || before.revision !== expected || !this.#holds(also)) return undefined
    const revision = ++this.#revision
    this.#entries.delete(key)
    this.#append({ type: 'delete', key, revision, previous: previousOf(before) })
    return revision
  }

  watch(prefix: string, from: bigint, signal: AbortSignal, progress?: WatchProgress): AsyncIterable<KvEvent> {
    return this.#feed.watch(prefix, from, signal, (after) => this.#since(after, historyChunk), progress)
  }

  async close(): Promise<void> {}

  #holds(also: KvCondition | undefined): boolean {
    return also === undefined || (this.#entries.get(also.key)?.revision ?? 0n) === also.revision
  }

  /** @throws ApiError `Gone` */
  #since(revision: bigint, count = Number.POSITIVE_INFINITY): readonly KvEvent[] {
    if (revision < this.#oldest || revision > this.#revision) throw tooOld(revision)
    const start = Number(revision - this.#oldest)
    return this.#log.slice(start, start + count)
  }

  #append(event: KvEvent): void {
    this.#log.push(event)
    this.#bytes += weightOf(event)
    // Half is cut off at a time, so that the cost of a write does not depend on the limit.
    if (this.#log.length > this.#historyLimit * 2) this.#trim(this.#log.length - this.#historyLimit)
    while (this.#bytes > this.#historyBytes && this.#log.length > 0) this.#trim(this.#log.length / 2 + 1)
    this.#feed.publish([event])
  }

  #trim(count: number): void {
    for (const event of this.#log.splice(0, count)) {
      this.#bytes -= weightOf(event)
      this.#oldest = event.revision
    }
  }
}

function previousOf({ value, revision }: KvEntry) {
  return { value, revision }
}
