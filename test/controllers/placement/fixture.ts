import { crowdOf } from '../../../src/controllers/placement/crowd.ts'
import { hostRefusal, misfit, needsOf, type Refusal } from '../../../src/controllers/placement/fit.ts'
import type { World } from '../../../src/controllers/placement/plan.ts'
import { Residents } from '../../../src/controllers/placement/residents.ts'
import { roomOf } from '../../../src/controllers/placement/room.ts'
import type { Condition } from '../../../src/resources/conditions.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { fencedHolder, hostLeaseName, systemNamespace } from '../../../src/resources/host-lease.ts'
import { Host, Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine, type VmStatus, vmSpec } from '../../../src/resources/vm.ts'

/** A whole second, as written times are. */
export const now = Date.parse('2026-01-01T12:00:00Z')
export const time = (ms = 0) => `${new Date(now + ms).toISOString().slice(0, 19)}Z`

type Meta = Partial<VirtualMachine['metadata']>

/** A machine of 1 vCPU and 1Gi unless its spec says otherwise. */
export function machine(
  name: string,
  spec: Record<string, unknown> = {},
  status?: Partial<VmStatus>,
  meta: Meta = {},
): VirtualMachine {
  return {
    ...{ apiVersion: apiVersionOf(VirtualMachine), kind: VirtualMachine.kind },
    metadata: {
      ...{ name, namespace: 'default', uid: `uid-${name}`, generation: 1, creationTimestamp: time() },
      ...{ resourceVersion: '1', ...meta },
    },
    spec: vmSpec.parse({ memory: '1Gi', ...spec }),
    ...(status && { status: { restarts: 0, networks: [], disks: [], conditions: [], ...status } }),
  }
}

/** One that is placed. */
export const placed = (name: string, host: string, spec: Record<string, unknown> = {}, meta: Meta = {}) =>
  machine(name, spec, { hostName: host, placementEpoch: 1, disksHost: host }, meta)

export const labelled = (labels: Record<string, string>): Meta => ({ labels })

interface Reported {
  readonly memory?: string
  readonly accelerator?: string
  readonly conditions?: readonly Condition[]
}

export const ready: Condition = {
  ...{ type: 'Ready', status: 'True', reason: 'Ready', message: '' },
  lastTransitionTime: time(),
}

/** A ready host with 4 processors and 8Gi, of which machines may have 16 and 8Gi. */
export function host(
  name: string,
  spec: Record<string, unknown> = {},
  status: Reported = {},
  labels: Record<string, string> = {},
): Host {
  const facts = { cpus: 4, memory: '8Gi', accelerator: 'tcg', conditions: [ready], ...status }
  const body = Host.body.parse({ spec, status: facts }) as Pick<Host, 'spec' | 'status'>
  return {
    ...{ apiVersion: apiVersionOf(Host), kind: Host.kind, metadata: { name, labels, uid: `uid-${name}` } },
    ...body,
  }
}

export function lease(name: string, epoch = 1, holder = name): Lease {
  return {
    ...{ apiVersion: apiVersionOf(Lease), kind: Lease.kind },
    metadata: { name: hostLeaseName(name), namespace: systemNamespace },
    spec: { holderIdentity: holder, leaseTransitions: epoch },
  }
}

export const fenced = (name: string, epoch = 2) => lease(name, epoch, fencedHolder)

export function pool(name: string, shared: boolean, path = `/pools/${name}`): StoragePool {
  return {
    ...{ apiVersion: apiVersionOf(StoragePool), kind: StoragePool.kind, metadata: { name } },
    spec: { path, shared },
  }
}

/** Hosts hold their leases unless others are given. */
export function world(of: Partial<Omit<World, 'leases'>> & { readonly leases?: readonly Lease[] }): World {
  const { hosts = [], machines = [], pools = [] } = of
  const leases = of.leases ?? hosts.map(({ metadata }) => lease(metadata.name))
  return {
    ...{ hosts, machines, pools, now: of.now ?? now },
    leases: new Map(leases.map((one) => [one.metadata.name, one])),
  }
}

/** What `misfit` says of a machine and each host of a world, by itself and not through `plan`. */
export function refusals(vm: VirtualMachine, of: World): ReadonlyMap<string, Refusal | undefined> {
  const residents = new Residents()
  const rooms = of.hosts.map((one) => {
    const { name } = one.metadata
    const machines = of.machines.filter(({ status }) => status?.hostName === name)
    for (const there of machines) residents.add(there, name)
    return roomOf(one, { machines, lease: of.leases.get(hostLeaseName(name)), now: of.now })
  })
  const needs = needsOf(vm, of.pools)
  const crowd = crowdOf(
    vm,
    residents,
    rooms,
    rooms.filter((room) => hostRefusal(needs.demand, room) === undefined),
  )
  return new Map(rooms.map((room) => [room.name, misfit(needs, room, crowd)]))
}
