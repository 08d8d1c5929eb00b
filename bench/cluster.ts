import { systemClock } from '../src/lib/clock.ts'
import { silentLog } from '../src/lib/log.ts'
import { apiVersionOf } from '../src/resources/define.ts'
import { hostLeaseName, systemNamespace } from '../src/resources/host-lease.ts'
import { Host, Lease, StoragePool } from '../src/resources/kinds.ts'
import { VirtualMachine } from '../src/resources/vm.ts'
import { Informer } from '../src/runtime/informer.ts'
import { KvObjects } from '../src/store/kv-objects.ts'
import { MemoryKv } from '../src/store/memory.ts'
import type { ObjectStore } from '../src/store/objects.ts'

/** The cluster that the speed table is about: so many hosts with so many machines each. */
export const hosts = 100
export const each = 100
/** Of each simulated host, GiB. */
export const hostMemory = 256

/** A store in memory. */
export function memoryObjects(): KvObjects {
  let uid = 0
  return new KvObjects(new MemoryKv({ historyLimit: 100_000 }), {
    clock: systemClock,
    newUid: () => `uid-${uid++}`,
  })
}

/** A host that has reported, without a lease. */
export async function addHost(objects: ObjectStore, name: string): Promise<void> {
  const body = Host.body.parse({ spec: {} }) as Pick<Host, 'spec'>
  const created = await objects.create(Host, {
    ...{ apiVersion: apiVersionOf(Host), kind: Host.kind, metadata: { name } },
    ...body,
  })
  const at = '2026-01-01T00:00:00Z'
  const ready = [
    { type: 'Ready', status: 'True' as const, reason: 'Ready', message: '', lastTransitionTime: at },
  ]
  const facts = {
    ...{ cpus: 64, memory: `${hostMemory}Gi`, accelerator: 'kvm', addresses: [], capabilities: [] },
    ...{ orphans: [], epoch: 1, qemuVersion: '7.2.0', agentVersion: '0.1.0', vms: each },
  }
  await objects.updateStatus(Host, { ...created, status: { ...facts, conditions: ready } })
}

/** The lease of a host that holds it, with what its guard would say in it. */
export async function addLease(
  objects: ObjectStore,
  name: string,
  annotations?: Record<string, string>,
): Promise<Lease> {
  return objects.create(Lease, {
    ...{ apiVersion: apiVersionOf(Lease), kind: Lease.kind },
    metadata: {
      ...{ name: hostLeaseName(name), namespace: systemNamespace },
      ...(annotations && { annotations }),
    },
    spec: { holderIdentity: name, leaseTransitions: 1, leaseDurationSeconds: 10 },
  })
}

/**
 * A machine without a host. Replicas of a service of ten keep apart and spread, as those do that are worth a failover.
 * @param memory such as `2Gi`
 */
export async function addWaiting(
  objects: ObjectStore,
  index: number,
  memory = '2Gi',
): Promise<VirtualMachine> {
  const labels = { app: `s${Math.floor(index / 10)}` }
  const body = VirtualMachine.body.parse({
    spec: { memory, affinity: { apart: [{ labels }] }, spread: [{ labels }] },
  }) as Pick<VirtualMachine, 'spec'>
  return objects.create(VirtualMachine, {
    ...{ apiVersion: apiVersionOf(VirtualMachine), kind: VirtualMachine.kind },
    ...{ metadata: { name: `m${index}`, namespace: 'default', labels }, ...body },
  })
}

/** A machine that runs on a host. */
export async function addMachine(objects: ObjectStore, index: number, host: string): Promise<void> {
  const created = await addWaiting(objects, index)
  const at = '2026-01-01T00:00:00Z'
  const conditions = (['Ready', 'DisksReady', 'Scheduled'] as const).map((type) => ({
    ...{
      type,
      status: 'True' as const,
      reason: 'Placed',
      message: `on host ${host}`,
      lastTransitionTime: at,
    },
  }))
  const launchId = crypto.randomUUID()
  const qemu = { pid: 1_000 + index, startTime: 4_711, bootId: 'boot', launchId, accelerator: 'kvm' }
  await objects.updateStatus(VirtualMachine, {
    ...created,
    status: {
      ...{ restarts: 0, networks: [], disks: [], conditions, disksHost: host, hostName: host },
      ...{ placementEpoch: 1, phase: 'Running', reason: 'Running', onHostLoss: 'Manual' },
      process: { ...qemu, startedAt: at, specHash: 'hash', qemuVersion: '7.2.0' },
    },
  })
}

/** Copies of what the leader's placement reads. */
export function copiesOf(objects: ObjectStore) {
  return {
    vms: new Informer(objects, VirtualMachine, silentLog),
    hosts: new Informer(objects, Host, silentLog),
    pools: new Informer(objects, StoragePool, silentLog),
    leases: new Informer(objects, Lease, silentLog),
  }
}

/** Does `one` for 0 to count - 1, some at once. */
export async function many(
  count: number,
  one: (index: number) => Promise<unknown>,
  atOnce = 64,
): Promise<void> {
  let next = 0
  const work = async () => {
    while (next < count) await one(next++)
  }
  await Promise.all(Array.from({ length: atOnce }, work))
}
