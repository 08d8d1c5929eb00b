import { onTestFinished } from 'vitest'
import { runPlacement } from '../../../src/controllers/placement/start.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { Host, Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine, type VmStatus } from '../../../src/resources/vm.ts'
import { Informer } from '../../../src/runtime/informer.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import type { ObjectStore, WatchEvent } from '../../../src/store/objects.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { host, lease, machine } from './fixture.ts'

/** While it lags, what tells of a placement comes late. */
async function* lagging<T>(
  events: AsyncIterable<WatchEvent<T>>,
  lags: () => boolean,
): AsyncGenerator<WatchEvent<T>> {
  const late: WatchEvent<T>[] = []
  for await (const event of events) {
    const { status } = event.object as { status?: { hostName?: string } }
    if (lags() && status?.hostName !== undefined) {
      late.push(event)
      continue
    }
    yield* late.splice(0)
    yield event
  }
}

export type UpdateStatus = (vm: VirtualMachine) => Promise<VirtualMachine>

/** One that places, and what it did. */
interface Leader {
  readonly said: string[]
  readonly passes: () => number
  readonly writes: () => number
  readonly failures: () => number
  readonly stop: () => Promise<void>
}

/** A store, time that stands still, and leaders over them. */
export function cluster() {
  const clock = new VirtualClock()
  let lags = false
  let uid = 0
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, { clock, newUid: () => `uid-${++uid}` })
  const advance = async (ms: number) => {
    for (let left = ms; left > 0; left -= 100) await clock.advance(Math.min(left, 100))
    // The store and its watches take turns of their own.
    for (let i = 0; i < 20; i++) await clock.settle()
  }

  const informersOver = (store: ObjectStore) => ({
    vms: new Informer(store, VirtualMachine, silentLog, clock),
    hosts: new Informer(store, Host, silentLog, clock),
    pools: new Informer(store, StoragePool, silentLog, clock),
    leases: new Informer(store, Lease, silentLog, clock),
  })

  /** A leader with informers of its own. @param write stands before the store's updateStatus */
  function lead(
    write: (next: UpdateStatus, vm: VirtualMachine) => Promise<VirtualMachine> = (n, vm) => n(vm),
  ) {
    const stopping = new AbortController()
    let [passes, writes, failures] = [0, 0, 0]
    const own = Object.create(objects) as ObjectStore
    for (const method of ['get', 'list'] as const)
      (own as unknown as Record<string, unknown>)[method] = objects[method].bind(objects)
    own.watch = (kind, options) => lagging(objects.watch(kind, options), () => lags)
    own.updateStatus = ((_kind: typeof VirtualMachine, vm: VirtualMachine) => {
      writes += 1
      return write((one) => objects.updateStatus(VirtualMachine, one), vm)
    }) as ObjectStore['updateStatus']
    const informers = informersOver(own)
    const said: string[] = []
    const loop = runPlacement(
      {
        ...{ objects: own, ...informers, clock, log: silentLog },
        tell: ({ metadata }, { reason, message }) => said.push(`${metadata.name} ${reason}: ${message}`),
        onPass: (_key, _ms, failed) => {
          passes += 1
          failures += failed ? 1 : 0
        },
      },
      stopping.signal,
    )
    const loops = [loop, ...Object.values(informers).map((one) => one.run(stopping.signal))]
    const stop = async () => {
      stopping.abort()
      await Promise.all(loops)
    }
    onTestFinished(stop)
    return {
      said,
      passes: () => passes,
      writes: () => writes,
      failures: () => failures,
      stop,
    } satisfies Leader
  }

  const addHost = async (name: string, spec: object = {}, memory = '8Gi', epoch = 1) => {
    const { status, metadata, ...one } = host(name, { ...spec }, { memory })
    const created = await objects.create(Host, { ...one, metadata: { name } })
    await objects.updateStatus(Host, { ...created, status })
    await objects.create(Lease, lease(name, epoch))
  }
  const add = async (
    name: string,
    spec: object = {},
    status?: Partial<VmStatus>,
    labels?: Record<string, string>,
  ) => {
    const { metadata, status: given, ...one } = machine(name, { ...spec }, status)
    const meta = { name, namespace: 'default', ...(labels && { labels }) }
    const created = await objects.create(VirtualMachine, { ...one, metadata: meta })
    return given ? objects.updateStatus(VirtualMachine, { ...created, status: given }) : created
  }
  const get = (name: string) => objects.get(VirtualMachine, { namespace: 'default', name })
  const hostOf = async (name: string) => (await get(name)).status?.hostName
  const scheduled = async (name: string) =>
    (await get(name)).status?.conditions.find(({ type }) => type === 'Scheduled')
  const changeHost = async (name: string, spec: object) => {
    const before = await objects.get(Host, { name })
    await objects.update(Host, { ...before, spec: { ...before.spec, ...spec } })
  }
  const lag = () => {
    lags = true
  }
  return {
    objects,
    informersOver,
    lag,
    clock,
    advance,
    kv,
    lead,
    addHost,
    add,
    get,
    hostOf,
    scheduled,
    changeHost,
  }
}
