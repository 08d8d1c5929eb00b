import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Config, etcdUrls } from './config.ts'
import { systemClock } from './lib/clock.ts'
import { withDeadline } from './lib/deadline.ts'
import { messageOf } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import { Host } from './resources/kinds.ts'
import { clusterKeyPlace } from './store/cluster-key.ts'
import type { EtcdKv, EtcdOptions } from './store/etcd.ts'
import type { CallTimes } from './store/etcd-cluster.ts'
import { EtcdReplaced, type EtcdSeen, parseSeen } from './store/etcd-seen.ts'
import type { Kv } from './store/kv.ts'
import type { LocalKv } from './store/lmdb.ts'
import { MemoryKv } from './store/memory.ts'
import type { ObjectStore } from './store/objects.ts'
import { openKubernetes, requireHostsApart, requireKinds } from './wire-kubernetes.ts'
import { etcdCredentials } from './wire-store-credentials.ts'
import { recordName, StoreRecord } from './wire-store-record.ts'

/** A try that was begun within the deadline has ended after this, ms, the time that it may take not counted. */
const renewalSlackMs = 500

/** The store of a server. */
export interface ServerStore {
  /** Absent where others keep the objects. */
  readonly kv?: Kv
  /** The objects that others keep, in place of `kv`. */
  readonly objects?: ObjectStore
  /** Whether it answers; resolves with why not, within `timeoutMs`. */
  readonly trouble: (timeoutMs: number) => Promise<string | undefined>
  /** Once nothing uses it any more. */
  readonly close: () => Promise<void>
}

/**
 * Opens the store of a server: one that is not the store of its last life is refused, unless it is to be accepted.
 * @throws PlasmaError that names the setting, file or endpoint; `StoreReset` where it is another store, or went back
 */
export async function openServerStore(config: Config, log: Log): Promise<ServerStore> {
  if (config.store === 'kubernetes') return openRemote(config, log)
  if (config.store === 'memory') {
    const kv = new MemoryKv()
    return { kv, trouble: async () => undefined, close: () => kv.close() }
  }
  if (config.store !== 'etcd') {
    const kv = await openLocal(config, log)
    return { kv, trouble: (timeoutMs) => kv.trouble(timeoutMs), close: () => kv.close() }
  }
  const record = new StoreRecord({ file: join(config.dataDir, recordName), clock: systemClock, log })
  const accept = config.acceptStoreReset
  const seen = record.read(accept)
  const kv = await openAnyEtcd(config, log, { ...(seen && { seen }) }).catch((error: unknown) => {
    if (!(error instanceof EtcdReplaced)) throw error
    if (!accept) throw record.refusal(error)
    record.accepts(error)
    return openAnyEtcd(config, log)
  })
  try {
    await record.begin(() => kv.seen, accept)
  } catch (error) {
    await kv.close()
    throw error
  }
  return {
    kv,
    trouble: (timeoutMs) =>
      kv.probe(timeoutMs).then(
        () => undefined,
        (error: unknown) => messageOf(error),
      ),
    close: async () => {
      await record.end()
      await kv.close()
    },
  }
}

/**
 * Opens the store of a guard. Across its lives it remembers no more than which etcd its server knows, and it takes a store
 * that was restored, which has the key of the cluster, as it is once its lease has run out: by then it has stopped its
 * machines, or knows that most hosts have lost the store. Before, that endpoint may be one of another etcd beside the one
 * on which the others go on.
 * @param times deadlines of calls to etcd
 * @param onReplaced told when a restored store is taken as it is
 * @throws PlasmaError that names the setting, file or endpoint
 */
export async function openStore(
  config: Config,
  log: Log,
  times: Partial<CallTimes>,
  onReplaced: () => void,
): Promise<Kv> {
  if (config.store === 'memory') return new MemoryKv()
  if (config.store !== 'etcd') return openLocal(config, log)
  const afterMs = (config.leaseDeadline + Math.max(config.leaseRenew, 1)) * 1_000 + renewalSlackMs
  const seen = seenByServer(config)
  const forget = { afterMs, anchor: clusterKeyPlace, onReplaced }
  return openAnyEtcd(config, log, { times, forget, ...(seen && { seen }) })
}

/**
 * Which etcd the server of this host knows, so that a guard that starts is not led to another beside it. Of its history
 * nothing: a guard does not judge that across its lives.
 */
function seenByServer({ dataDir }: Config): EtcdSeen | undefined {
  try {
    const { clusterId } = parseSeen(readFileSync(join(dataDir, recordName), 'utf8'))
    return { clusterId, revision: 0n }
  } catch {
    // No server has run here yet, or it says itself what is wrong with its record.
    return undefined
  }
}

async function openRemote(config: Config, log: Log): Promise<ServerStore> {
  const store = await openKubernetes(config, log)
  try {
    await requireKinds(store)
    if (config.roles.includes('agent')) await requireHostsApart(store.objects, config.hostName)
  } catch (error) {
    await store.close()
    throw error
  }
  return { objects: store.objects, trouble: askingRemote(store.objects), close: store.close }
}

/** Whether the API server answers us; no second question is asked while one is under way. */
function askingRemote(objects: ObjectStore): ServerStore['trouble'] {
  let asked: Promise<unknown> | undefined
  const ask = () => {
    // Every role may list hosts.
    asked ??= objects.list(Host, { limit: 1 }).finally(() => {
      asked = undefined
    })
    return asked
  }
  return (timeoutMs) => withDeadline(timeoutMs, 'an answer of the API', ask).then(() => undefined, messageOf)
}

async function openLocal(config: Config, log: Log): Promise<LocalKv> {
  // Loaded where it is needed: native code, which the guard of a host, that must start quickly, never uses.
  const { openLmdb } = await import('./store/lmdb.ts')
  return openLmdb(join(config.dataDir, 'store'), { log })
}

async function openAnyEtcd(
  config: Config,
  log: Log,
  more: Pick<EtcdOptions, 'times' | 'seen' | 'forget'> = {},
): Promise<EtcdKv> {
  const [endpoints, credentials] = [etcdUrls(config), etcdCredentials(config, log)]
  // It takes a fifth of a second to load, which no other store has to wait for.
  const { openEtcd } = await import('./store/etcd.ts')
  return openEtcd({
    ...{ endpoints, prefix: config.etcdPrefix, credentials, clock: systemClock, log, ...more },
  })
}
