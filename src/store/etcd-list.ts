import { apiError, type EtcdCluster } from './etcd-cluster.ts'
import { EtcdFailure } from './etcd-errors.ts'
import { type EtcdKeys, sharedPrefix } from './etcd-keys.ts'
import { tooOld } from './history.ts'
import type { KvEntry, KvList, KvListOptions } from './kv.ts'

/** Objects are at most 1.5 MiB: as many as these go into an answer, whatever they are. */
const firstPage = 16
const largestPage = 2_000
const pageBytes = 4 * 1024 * 1024

/** How often a list that compaction overtook is begun anew. */
const tries = 3

/** Lists, fetched page by page at one revision; pages are as large as what came before lets expect. */
export class EtcdLists {
  readonly #cluster: EtcdCluster
  readonly #keys: EtcdKeys
  /** Entries that make a page, by kind. */
  readonly #sizes = new Map<string, number>()

  constructor(cluster: EtcdCluster, keys: EtcdKeys) {
    this.#cluster = cluster
    this.#keys = keys
  }

  /**
   * All entries under a prefix.
   * @throws ApiError `Gone`, `ServiceUnavailable`
   */
  async list(prefix: string, options: KvListOptions = {}): Promise<KvList> {
    const { at } = options
    // etcd takes 0 for the present.
    if (at !== undefined && at <= 0n) throw tooOld(at)
    for (let left = tries; ; left -= 1) {
      try {
        return await this.#pages(prefix, options)
      } catch (error) {
        const past = error instanceof EtcdFailure && (error.kind === 'compacted' || error.kind === 'future')
        if (!past) throw apiError(error, "can't be read")
        if (at !== undefined || left <= 1) throw tooOld(at ?? this.#cluster.revision)
      }
    }
  }

  async #pages(prefix: string, { after = '', limit, at }: KvListOptions): Promise<KvList> {
    const keys = this.#keys
    const kind = sharedPrefix(prefix)
    const entries: KvEntry[] = []
    let revision = at
    for (let start = after > prefix ? keys.after(after) : keys.of(prefix); ; ) {
      const size = this.#sizes.get(kind) ?? firstPage
      const wanted = limit === undefined ? size : Math.min(size, limit - entries.length)
      const page = await this.#page(kind, {
        ...{ key: start, range_end: keys.end(prefix), limit: wanted },
        ...(revision !== undefined && { revision: String(revision) }),
      })
      if (!page) continue
      revision ??= BigInt(page.header.revision)
      for (const kv of page.kvs) entries.push(keys.entry(kv))
      const last = entries.at(-1)
      if (!page.more || !last) return { entries, revision }
      if (entries.length === limit)
        return { entries, revision, more: last.key, left: Number(page.count) - page.kvs.length }
      start = keys.after(last.key)
    }
  }

  /** A page, or undefined where it did not fit into an answer and a smaller one is to be asked for. */
  async #page(kind: string, request: { key: Buffer; limit: number }) {
    let { limit } = request
    try {
      const page = await this.#cluster.read((client, timeoutMs) => {
        const asked = client.range({ ...request, limit }, timeoutMs)
        // One that does not come in time may be too much for the connection.
        limit = Math.max(1, Math.floor(limit / 4))
        return asked
      })
      const bytes = page.kvs.reduce((sum, { key, value }) => sum + key.length + value.length, 0)
      const expected = Math.floor((pageBytes * page.kvs.length) / bytes)
      if (bytes > 0) this.#sizes.set(kind, Math.max(1, Math.min(largestPage, expected)))
      return page
    } catch (error) {
      const tooLarge = error instanceof EtcdFailure && error.kind === 'page-too-large'
      if (!tooLarge || request.limit <= 1) throw error
      this.#sizes.set(kind, Math.ceil(request.limit / 8))
      return undefined
    }
  }
}
