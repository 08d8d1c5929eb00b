import { type EtcdKv, type EtcdOptions, openEtcd } from '../../src/store/etcd.ts'
import type { Kv, KvCondition, KvEntry, KvEvent, KvPrevious } from '../../src/store/kv.ts'
import type { EtcdLab } from './etcd-server.ts'

let places = 0

/** A store under a prefix of its own, where none is given; endpoints are used in the order they are given. */
export async function openAt(
  lab: EtcdLab,
  options: Partial<EtcdOptions> = {},
): Promise<EtcdKv & { readonly prefix: string }> {
  const { prefix = `/place-${++places}` } = options
  const kv = await openEtcd({ endpoints: lab.endpoints, random: () => 0, ...options, prefix })
  return Object.assign(kv, { prefix })
}

const bases = new WeakMap<Kv, { base: bigint; prefix: string }>()

/**
 * A watch of the past takes etcd a tenth of a second to begin with. Of a history as short as the contract's, kept by
 * number, it could be gone by then.
 */
const limitFactor = 5

/**
 * An empty store whose revisions begin with 1, as the contract counts them, in an etcd that has been used before.
 * Its history is compacted whenever it is to be, before the write returns.
 */
export async function openFresh(lab: EtcdLab, history: { limit?: number; bytes?: number } = {}): Promise<Kv> {
  const prefix = `/fresh-${++places}`
  const limit = history.limit !== undefined && { limit: history.limit * limitFactor }
  const kv = await openAt(lab, { prefix, history: { ...history, ...limit } })
  const { revision: base } = await kv.list('/')
  return rebased(kv, base, prefix)
}

/** Closes it and opens it again. */
export async function reopened(lab: EtcdLab, kv: Kv): Promise<Kv> {
  const { base, prefix } = bases.get(kv) as { base: bigint; prefix: string }
  await kv.close()
  return rebased(await openAt(lab, { prefix }), base, prefix)
}

function rebased(kv: EtcdKv, base: bigint, prefix: string): Kv {
  const shifted = <T extends KvEntry | KvPrevious>(one: T): T => ({ ...one, revision: one.revision - base })
  const there = (revision: bigint) => (revision === 0n ? 0n : revision + base)
  const elsewhere = (also?: KvCondition) => also && { ...also, revision: there(also.revision) }
  const back = async (writing: Promise<bigint | undefined>) => {
    const revision = await writing
    await kv.settled()
    return revision === undefined ? undefined : revision - base
  }
  const told = (event: KvEvent): KvEvent =>
    ({
      ...event,
      revision: event.revision - base,
      ...(event.previous && { previous: shifted(event.previous) }),
    }) as KvEvent
  const store: Kv = {
    async get(key) {
      const entry = await kv.get(key)
      return entry && shifted(entry)
    },
    async list(from, { at, ...options } = {}) {
      const list = await kv.list(from, { ...options, ...(at !== undefined && { at: at + base }) })
      return { ...list, entries: list.entries.map(shifted), revision: list.revision - base }
    },
    put: (key, value, expected, also) => back(kv.put(key, value, there(expected), elsewhere(also))),
    delete: (key, expected, also) => back(kv.delete(key, there(expected), elsewhere(also))),
    async *watch(from, revision, signal) {
      for await (const event of kv.watch(from, revision + base, signal)) yield told(event)
    },
    close: () => kv.close(),
  }
  bases.set(store, { base, prefix })
  return store
}
