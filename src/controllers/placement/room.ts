import { fencedHolder } from '../../resources/host-lease.ts'
import type { Host, Lease } from '../../resources/kinds.ts'
import { bytesOf } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/vm.ts'

export type Labels = Readonly<Record<string, string>>

/** Every host has this label, and its value is the host's name whatever was written there. */
export const hostnameLabel = 'kubernetes.io/hostname'

/** What machines may have of a host in all, overcommit counted, and what those there have: vCPUs, and bytes. */
export interface Share {
  readonly cpus: number
  readonly memory: number
}

/** A host as placement sees it: with those on it, or decided to be. */
export interface Room {
  readonly name: string
  readonly host: Host
  readonly labels: Labels
  readonly machines: readonly VirtualMachine[]
  /** Those of them that keep apart from others. */
  readonly apart: readonly VirtualMachine[]
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

export function vcpusOf({ spec: { cpu } }: VirtualMachine): number {
  return cpu.cores * cpu.sockets * cpu.threads
}

export function memoryOf({ spec }: VirtualMachine): number {
  return bytesOf(spec.memory)
}

/** Whether `vm` has all of the labels. */
export function hasLabels(vm: VirtualMachine, labels: Labels): boolean {
  const own = vm.metadata.labels
  if (!own) return false
  for (const key in labels) if (!Object.hasOwn(own, key) || own[key] !== labels[key]) return false
  return true
}

/** Whether `other` is one of those that a selector of `vm` means: of the same namespace, another machine. */
export function isMeant(vm: VirtualMachine, other: VirtualMachine, labels: Labels): boolean {
  if (vm.metadata.namespace !== other.metadata.namespace) return false
  return vm.metadata.uid !== other.metadata.uid && hasLabels(other, labels)
}

function capacityOf({ spec, status }: Host): Share | undefined {
  if (status?.cpus === undefined || status.memory === undefined) return undefined
  const { cpuPercent, memoryPercent } = spec.overcommit
  return {
    cpus: Math.floor((status.cpus * cpuPercent) / 100),
    memory: Math.floor((bytesOf(status.memory) * memoryPercent) / 100),
  }
}

function leaseOf(name: string, lease: Lease | undefined): Pick<Room, 'epoch' | 'leaseProblem'> {
  if (!lease) return { epoch: undefined, leaseProblem: 'it has no lease' }
  const { holderIdentity: holder = '', leaseTransitions = 0 } = lease.spec
  if (holder === name) return { epoch: leaseTransitions, leaseProblem: '' }
  const by = holder === fencedHolder ? 'was taken from it, as it was lost' : `is held by "${holder}"`
  return { epoch: undefined, leaseProblem: `its lease ${by}` }
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
    ...{ name, host, machines, labels: { ...labels, [hostnameLabel]: name } },
    apart: machines.filter(keepsApart),
    taken: {
      cpus: machines.reduce((sum, vm) => sum + vcpusOf(vm), 0),
      memory: machines.reduce((sum, vm) => sum + memoryOf(vm), 0),
    },
    capacity: capacityOf(host),
    ...leaseOf(name, lease),
    maintenance: maintenanceOf(host, now),
  }
}

function keepsApart({ spec }: VirtualMachine): boolean {
  return spec.affinity.apart.length > 0
}

/** The same host with one more on it. */
export function withMachine(room: Room, vm: VirtualMachine): Room {
  return {
    ...room,
    machines: [...room.machines, vm],
    apart: keepsApart(vm) ? [...room.apart, vm] : room.apart,
    taken: {
      cpus: room.taken.cpus + vcpusOf(vm),
      memory: room.taken.memory + memoryOf(vm),
    },
  }
}
