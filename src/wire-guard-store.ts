import type { ClusterView } from './controllers/guard/ports.ts'
import { hostIdAnnotation } from './controllers/host/register.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import { withDeadline } from './lib/deadline.ts'
import { messageOf, PlasmaError } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import { inMaintenance } from './resources/host.ts'
import { hostOfLease, leaseFacts, systemNamespace } from './resources/host-lease.ts'
import { Host, Lease } from './resources/kinds.ts'
import { clusterKey } from './store/cluster-key.ts'
import { isReason } from './store/errors.ts'
import type { Kv } from './store/kv.ts'
import { KvObjects } from './store/kv-objects.ts'
import type { ObjectStore } from './store/objects.ts'
import { type EntryReader, entryReader } from './store/shown-event.ts'

/** Less than a server waits: a renewal that goes on with the next member of etcd must still come in time. */
export const guardCallTimes = { callMs: 2_500, attemptMs: 700 }
/** The list of hosts is read anew this often, ms. */
const listEveryMs = 10_000
const prepareMs = 3_000

interface KeyFile {
  readonly read: () => Buffer
  readonly write: (key: Buffer) => void
}

/** What a guard needs of a store that is open. */
export interface GuardBase {
  readonly objects: Pick<ObjectStore, 'get' | 'create' | 'update' | 'list'>
  /** The key by which the guards of a cluster know each other; undefined where the store keeps none: then nobody is asked. */
  readonly key: () => Promise<Buffer | undefined>
  readonly close: () => Promise<void>
}

/** What a guard needs, of a store that is a Kv. */
export function guardBase(
  kv: Kv,
  options: { readonly clock?: Clock; readonly newUid?: () => string; readonly reader?: EntryReader } = {},
): GuardBase {
  const { clock = systemClock, newUid = () => crypto.randomUUID(), reader = entryReader } = options
  return {
    objects: new KvObjects(kv, { clock, newUid, reader }),
    key: () => clusterKey(kv),
    close: () => kv.close(),
  }
}

export interface GuardStoreOptions {
  readonly hostName: string
  readonly hostId: string
  readonly open: () => Promise<GuardBase>
  readonly clock?: Clock
  readonly log: Log
}

/** The store as the guard needs it: it may be away when the guard starts, and come back. */
export class GuardStore {
  readonly #options: GuardStoreOptions
  readonly objects: ObjectStore
  readonly #clock: Clock
  #base: Promise<GuardBase> | undefined
  #key: Buffer | undefined
  #keyFile: KeyFile | undefined
  #listedAt = Number.NEGATIVE_INFINITY
  #members: ClusterView['members'] = new Map()

  constructor(options: GuardStoreOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    const late = <K extends 'get' | 'create' | 'update' | 'list'>(name: K): ObjectStore[K] =>
      (async (...args: unknown[]) => {
        const { objects } = await this.#open()
        return (objects[name] as (...all: unknown[]) => unknown).apply(objects, args)
      }) as ObjectStore[K]
    const unused = () => {
      throw new Error('the guard does not need this')
    }
    this.objects = {
      ...{ get: late('get'), create: late('create'), update: late('update'), list: late('list') },
      ...{ updateStatus: unused, delete: unused, watch: unused },
    }
  }

  /** The key of the cluster, once it is known. */
  get key(): Buffer | undefined {
    return this.#key
  }

  /**
   * Where a guard that is started while the store is away finds the key: in the run directory, in memory, where a
   * machine's sockets lie as well.
   */
  useKeyFile(file: KeyFile): void {
    this.#keyFile = file
    try {
      const key = file.read()
      if (key.length > 0) this.#key ??= key
    } catch {
      // The first guard since the boot.
    }
    if (this.#key) this.#keep(this.#key)
  }

  /** Opens it, where that can be done in a moment. */
  async prepare(): Promise<void> {
    await withDeadline(prepareMs, 'opening the store', () => this.#learn(), { clock: this.#clock }).catch(
      (error: unknown) =>
        this.#options.log.warn('the store could not be read before', { message: messageOf(error) }),
    )
  }

  /** @param peer where we answer */
  async look(peer: string | undefined): Promise<ClusterView> {
    const { hostName } = this.#options
    await this.#learn()
    const host = await this.#ownHost()
    const now = this.#clock.elapsed()
    if (now - this.#listedAt >= listEveryMs) {
      this.#members = await this.#list()
      // A new cluster gets to know itself soon.
      this.#listedAt = this.#members.size > 1 ? now : now - listEveryMs + 1_000
    }
    const members = new Map(this.#members).set(hostName, peer)
    const unclaimed = this.#unclaimed(host)
    const maintenance = host?.spec.maintenance
    return {
      members,
      ...(unclaimed !== undefined && { unclaimed }),
      ...(maintenance && this.#suspends(maintenance) && { maintenance: maintenance.until }),
    }
  }

  #suspends(maintenance: NonNullable<Host['spec']['maintenance']>): boolean {
    return inMaintenance({ spec: { maintenance } }, this.#clock.now())
  }

  async close(): Promise<void> {
    await this.#base?.then((base) => base.close()).catch(() => {})
  }

  #open(): Promise<GuardBase> {
    this.#base ??= this.#options.open()
    this.#base.catch(() => {
      this.#base = undefined
    })
    return this.#base
  }

  async #learn(): Promise<void> {
    const key = await (await this.#open()).key()
    if (key === undefined || this.#key?.equals(key)) return
    this.#key = key
    this.#keep(key)
  }

  #keep(key: Buffer): void {
    try {
      this.#keyFile?.write(key)
    } catch (error) {
      this.#options.log.warn('the key of the cluster is not kept for the next guard', {
        message: messageOf(error),
      })
    }
  }

  async #ownHost(): Promise<Host | undefined> {
    try {
      return await this.objects.get(Host, { name: this.#options.hostName })
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }

  /** The server makes the name this host's own first: two hosts by one name would renew one lease. */
  #unclaimed(host: Host | undefined): string | undefined {
    const { hostName } = this.#options
    const owner = host?.metadata.annotations?.[hostIdAnnotation]
    if (owner === this.#options.hostId) return undefined
    if (owner === undefined) return `no server has registered the host ${hostName} yet`
    return `the name ${hostName} is that of another host`
  }

  async #list(): Promise<ClusterView['members']> {
    const [hosts, leases] = await Promise.all([
      this.objects.list(Host),
      this.objects.list(Lease, { namespace: systemNamespace }),
    ])
    const registered = new Set(hosts.items.map(({ metadata }) => metadata.name))
    const members = new Map<string, string | undefined>()
    for (const lease of leases.items) {
      const name = hostOfLease(lease.metadata.name)
      if (name !== undefined && registered.has(name)) members.set(name, peerOf(lease))
    }
    return members
  }
}

/** Where the guard of a lease's host answers others; undefined where the lease does not say so in words of ours. */
export function peerOf(lease: Lease): string | undefined {
  try {
    return leaseFacts(lease).peer
  } catch (error) {
    if (error instanceof PlasmaError) return undefined
    throw error
  }
}
