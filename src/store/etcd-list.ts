import type { IRangeResponse } from './etcd-client.ts'
import { apiError, type EtcdCluster } from './etcd-cluster.ts'
import { EtcdFailure } from './etcd-errors.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import { tooOld } from './history.ts'
import type { KvEntry, KvList, KvListOptions } from './kv.ts'

/** A first page is small, since objects may be large; those that follow are as large as what came lets expect. */
const firstPage = 100
const largestPage = 2_000
const pageBytes = 8 * 1024 * 1024

/** How often a list that compaction overtook is begun anew. */
const tries = 3

/**
 * All entries under a prefix, fetched page by page at one revision.
 * @throws ApiError `Gone`, `ServiceUnavailable`
 */
export async function listEtcd(
  cluster: EtcdCluster,
  keys: EtcdKeys,
  prefix: string,
  options: KvListOptions = {},
): Promise<KvList> {
  const { at } = options
  // etcd takes 0 for the present.
  if (at !== undefined && at <= 0n) throw tooOld(at)
  for (let left = tries; ; left -= 1) {
    try {
      return await pages(cluster, keys, prefix, options)
    } catch (error) {
      const past = error instanceof EtcdFailure && (error.kind === 'compacted' || error.kind === 'future')
      if (!past) throw apiError(error, "can't be read")
      if (at !== undefined || left <= 1) throw tooOld(at ?? cluster.revision)
    }
  }
}

async function pages(
  cluster: EtcdCluster,
  keys: EtcdKeys,
  prefix: string,
  { after = '', limit, at }: KvListOptions,
): Promise<KvList> {
  const entries: KvEntry[] = []
  const end = keys.end(prefix)
  let revision = at
  let size = firstPage
  for (let start = after > prefix ? keys.after(after) : keys.of(prefix); ; ) {
    const wanted = limit === undefined ? size : Math.min(size, limit - entries.length)
    const request = {
      ...{ key: start, range_end: end, limit: wanted },
      ...(revision !== undefined && { revision: String(revision) }),
    }
    let page: IRangeResponse
    try {
      page = await cluster.read((client, timeoutMs) => client.range(request, timeoutMs))
    } catch (error) {
      const tooLarge = error instanceof EtcdFailure && error.kind === 'page-too-large'
      if (!tooLarge || wanted <= 1) throw error
      size = Math.ceil(wanted / 8)
      continue
    }
    revision ??= BigInt(page.header.revision)
    let bytes = 0
    for (const kv of page.kvs) {
      entries.push(keys.entry(kv))
      bytes += kv.key.length + kv.value.length
    }
    const last = page.kvs.at(-1)
    const lastEntry = entries.at(-1)
    if (!page.more || !last || !lastEntry) return { entries, revision }
    if (entries.length === limit) return { entries, revision, more: lastEntry.key }
    size = Math.max(1, Math.min(largestPage, Math.floor(pageBytes / (bytes / page.kvs.length))))
    start = keys.after(lastEntry.key)
  }
}
