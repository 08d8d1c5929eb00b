import { fencedHolder, holderHost } from '../../resources/host-lease.ts'
import type { Host, Lease } from '../../resources/kinds.ts'
import { bytesOf } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Labels } from './residents.ts'

/** Every host has this label, and its value is the host's name whatever was written there. */
export const hostnameLabel = 'kubernetes.io/hostname'

/** What machines may have of a host in all, overcommit counted, and what those there have: vCPUs, and bytes. */
export interface Share {
  readonly cpus: number
  readonly memory: number
}

/** A host as placement sees it, with what those have that are on it or decided to be. */
export interface Room {
  readonly name: string
  readonly host: Host
  readonly labels: Labels
  readonly taken: Share
  /** Undefined until the host has said what it has. */
  readonly capacity: Share | undefined
  /** The epoch under which it holds its lease; undefined where it does not hold it. */
  readonly epoch: number | undefined
  /** Why there is no epoch. */
  readonly leaseProblem: string
  /** Until when it is under maintenance; undefined where it is not. */
  readonly maintenance: string | undefined
}

export interface RoomFacts {
  readonly machines: readonly VirtualMachine[]
  readonly lease?: Lease | undefined
  /** Wall ms: whether a maintenance is over. */
  readonly now: number
}

/** Each spec is asked with every pass, and never changes. */
const shares = new WeakMap<VirtualMachine['spec'], Share>()

/** What a machine has of its host. */
export function shareOf({ spec }: VirtualMachine): Share {
  const known = shares.get(spec)
  if (known) return known
  const { cores, sockets, threads } = spec.cpu
  const share = { cpus: cores * sockets * threads, memory: bytesOf(spec.memory) }
  shares.set(spec, share)
  return share
}

function plus(a: Share, b: Share): Share {
  return { cpus: a.cpus + b.cpus, memory: a.memory + b.memory }
}

function capacityOf({ spec, status }: Host): Share | undefined {
  if (status?.cpus === undefined || status.memory === undefined) return undefined
  const { cpuPercent, memoryPercent } = spec.overcommit
  return {
    cpus: Math.floor((status.cpus * cpuPercent) / 100),
    memory: Math.floor((bytesOf(status.memory) * memoryPercent) / 100),
  }
}

/** The epoch under which a host holds its lease; undefined where it does not. */
export function heldEpoch(name: string, lease: Lease | undefined): number | undefined {
  const { holderIdentity: holder, leaseTransitions = 0 } = lease?.spec ?? {}
  // A host may be called as that holder is.
  return holder !== fencedHolder && holderHost(holder) === name ? leaseTransitions : undefined
}

function leaseProblem(lease: Lease | undefined): string {
  if (!lease) return 'it has no lease'
  const { holderIdentity: holder = '' } = lease.spec
  if (holder === fencedHolder) return 'its lease was taken from it, as it was lost'
  return holder === '' ? 'nobody holds its lease' : `its lease is held by "${holder}"`
}

function maintenanceOf({ spec }: Host, now: number): string | undefined {
  if (!spec.maintenance) return undefined
  const { until } = spec.maintenance
  // A time that can't be read never comes.
  return Date.parse(until) <= now ? undefined : until
}

/** A host with those that are on it. */
export function roomOf(host: Host, { machines, lease, now }: RoomFacts): Room {
  const { name, labels } = host.metadata
  return {
    ...{ name, host, labels: { ...labels, [hostnameLabel]: name } },
    taken: machines.map(shareOf).reduce(plus, { cpus: 0, memory: 0 }),
    capacity: capacityOf(host),
    epoch: heldEpoch(name, lease),
    leaseProblem: leaseProblem(lease),
    maintenance: maintenanceOf(host, now),
  }
}

/** The same host with one more on it. */
export function withMachine(room: Room, vm: VirtualMachine): Room {
  return { ...room, taken: plus(room.taken, shareOf(vm)) }
}
