import { Feed, tooOld } from './feed.ts'
import type { Kv, KvEntry, KvEvent, KvList } from './kv.ts'

/** A Kv in memory: the same semantics as the durable ones, gone with the process. Also the store of the tests. */
export class MemoryKv implements Kv {
  readonly #entries = new Map<string, KvEntry>()
  readonly #feed = new Feed()
  readonly #historyLimit: number
  #log: KvEvent[] = []
  #revision = 0n
  #oldest = 0n

  constructor(options: { readonly historyLimit?: number } = {}) {
    this.#historyLimit = options.historyLimit ?? 10_000
  }

  async get(key: string): Promise<KvEntry | undefined> {
    return this.#entries.get(key)
  }

  async list(
    prefix: string,
    options: { readonly after?: string; readonly limit?: number } = {},
  ): Promise<KvList> {
    const { after = '', limit = Number.POSITIVE_INFINITY } = options
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix) && key > after).sort()
    const entries = keys.slice(0, limit).map((key) => this.#entries.get(key) as KvEntry)
    const last = entries.at(-1)?.key
    return {
      entries,
      revision: this.#revision,
      ...(keys.length > limit && last !== undefined && { more: last }),
    }
  }

  async put(key: string, value: string, expected: bigint): Promise<bigint | undefined> {
    const before = this.#entries.get(key)
    if ((before?.revision ?? 0n) !== expected) return undefined
    const revision = ++this.#revision
    this.#entries.set(key, { key, value, revision })
    this.#append({ type: 'put', key, value, revision, ...(before && { previous: before.value }) })
    return revision
  }

  async delete(key: string, expected: bigint): Promise<bigint | undefined> {
    const before = this.#entries.get(key)
    if (!before || before.revision !== expected) return undefined
    const revision = ++this.#revision
    this.#entries.delete(key)
    this.#append({ type: 'delete', key, revision, previous: before.value })
    return revision
  }

  watch(prefix: string, from: bigint, signal: AbortSignal): AsyncIterable<KvEvent> {
    return this.#feed.watch(prefix, from, signal, (revision) => {
      if (revision < this.#oldest || revision > this.#revision) throw tooOld(revision)
      return this.#log.filter((event) => event.revision > revision)
    })
  }

  async close(): Promise<void> {}

  #append(event: KvEvent): void {
    this.#log.push(event)
    if (this.#log.length > this.#historyLimit * 2) {
      this.#log = this.#log.slice(-this.#historyLimit)
      this.#oldest = (this.#log[0]?.revision ?? 1n) - 1n
    }
    this.#feed.publish([event])
  }
}
