import { homeOf } from '../../resources/adopted.ts'
import { hostLeaseName } from '../../resources/host-lease.ts'
import type { Host, Lease, StoragePool } from '../../resources/kinds.ts'
import { misunderstood } from '../../resources/understood.ts'
import { type VirtualMachine, vmFinalizer } from '../../resources/vm.ts'
import { keyOf } from '../../runtime/informer.ts'
import { Choices } from './choices.ts'
import { needsOf } from './fit.ts'
import { Residents } from './residents.ts'
import { type Room, roomOf } from './room.ts'

/** All that placement decides on. */
export interface World {
  readonly machines: readonly VirtualMachine[]
  readonly hosts: readonly Host[]
  readonly pools: readonly StoragePool[]
  /** Those of hosts, by name. */
  readonly leases: ReadonlyMap<string, Lease>
  /** Wall ms. */
  readonly now: number
}

export interface Assignment {
  readonly vm: VirtualMachine
  readonly host: string
  /** Of the host's lease. */
  readonly epoch: number
}

export interface Unplaced {
  readonly vm: VirtualMachine
  /** ProcessRecorded: its status tells of a QEMU, so it may run somewhere. Adopted: its QEMU runs, or did. */
  readonly reason: 'Unschedulable' | 'ProcessRecorded' | 'Adopted'
  /** Why each host refused it. Only the words are kept: thousands of machines on hundreds of hosts have too many reasons. */
  readonly message: string
}

export interface Placement {
  /** In the order of decision. */
  readonly assignments: readonly Assignment[]
  readonly unplaced: readonly Unplaced[]
}

/** As `sort` wants it. */
export function compare<T>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function byTurn(a: VirtualMachine, b: VirtualMachine): number {
  const [x = '', y = ''] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp]
  return b.spec.priority - a.spec.priority || compare(x, y) || compare(keyOf(a), keyOf(b))
}

/**
 * Whether a machine is to be given a host. One that is being deleted is, where our finalizer holds its object: without a
 * host nobody would remove its disks. Without that finalizer there is nothing of it, and it goes by itself. One whose
 * spec this version does not understand waits for a leader that does.
 */
function isWaiting(vm: VirtualMachine): boolean {
  const { metadata, status } = vm
  if (status?.hostName !== undefined || misunderstood(vm) !== undefined) return false
  return metadata.deletionTimestamp === undefined || (metadata.finalizers?.includes(vmFinalizer) ?? false)
}

/** Machines that are placed, by host, each list in the order of keys. */
function byHost(machines: readonly VirtualMachine[]): Map<string, VirtualMachine[]> {
  const placed = new Map<string, VirtualMachine[]>()
  for (const vm of machines) {
    const host = vm.status?.hostName
    if (host === undefined) continue
    const there = placed.get(host)
    if (there) there.push(vm)
    else placed.set(host, [vm])
  }
  for (const there of placed.values()) there.sort((a, b) => compare(keyOf(a), keyOf(b)))
  return placed
}

function roomsOf(
  { hosts, leases, now }: World,
  placed: ReadonlyMap<string, readonly VirtualMachine[]>,
): Room[] {
  return [...hosts]
    .sort((a, b) => compare(a.metadata.name, b.metadata.name))
    .map((host) => {
      const { name } = host.metadata
      return roomOf(host, { machines: placed.get(name) ?? [], lease: leases.get(hostLeaseName(name)), now })
    })
}

/** Those that are on hosts that are there, in the order of hosts, then keys. */
function residentsOf(
  placed: ReadonlyMap<string, readonly VirtualMachine[]>,
  rooms: readonly Room[],
): Residents {
  const residents = new Residents()
  for (const { name } of rooms) for (const vm of placed.get(name) ?? []) residents.add(vm, name)
  return residents
}

/** Hosts by the uids of the QEMUs on them that are nobody's. */
function orphansOf(hosts: readonly Host[]): ReadonlyMap<string, string> {
  return new Map(
    hosts.flatMap(({ metadata, status }) =>
      (status?.orphans ?? []).map(({ uid }) => [uid, metadata.name] as const),
    ),
  )
}

/**
 * Why a machine without a host may run nevertheless, so that no other host may be given it: it was made for a QEMU that
 * ran, whose host takes it up itself; or its status tells of a QEMU, and nobody knows where.
 */
function runsSomewhere(
  vm: VirtualMachine,
  orphans: ReadonlyMap<string, string>,
): Pick<Unplaced, 'reason' | 'message'> | undefined {
  const { metadata, status } = vm
  const home = orphans.get(metadata.uid ?? '') ?? homeOf(vm)
  if (home !== undefined)
    return { reason: 'Adopted', message: `its QEMU was found on host ${home}, which takes it up itself` }
  const member = status?.process ? 'process' : status?.launch ? 'launch' : undefined
  if (member === undefined) return undefined
  const message = `status.${member} tells of a QEMU, status.hostName of no host: it is not placed while it may run somewhere`
  return { reason: 'ProcessRecorded', message }
}

/**
 * Gives hosts to machines that have none: those of higher priority first, then the older ones, then by key; each
 * decision counts for the next. A machine that has a host never moves, and none is driven out for another. Every machine
 * is placed, also one that is to stay down: its host prepares its disks and says how it is, and the share it holds there
 * lets it start at any time. Pure, one decision a step; the order of what is given does not matter.
 */
export function* decisions(world: World): Generator<Assignment | Unplaced, void, void> {
  const placed = byHost(world.machines)
  const rooms = roomsOf(world, placed)
  const choices = new Choices(rooms, () => residentsOf(placed, rooms))
  const orphans = orphansOf(world.hosts)
  for (const vm of world.machines.filter(isWaiting).sort(byTurn)) {
    const running = runsSomewhere(vm, orphans)
    if (running) {
      yield { vm, ...running }
      continue
    }
    const chosen = choices.of(needsOf(vm, world.pools))
    if (typeof chosen === 'string') {
      yield { vm, reason: 'Unschedulable', message: chosen }
      continue
    }
    choices.take(chosen, vm)
    yield { vm, host: chosen.name, epoch: chosen.epoch ?? 0 }
  }
}

/** All decisions. */
export function placementOf(all: Iterable<Assignment | Unplaced>): Placement {
  const assignments: Assignment[] = []
  const unplaced: Unplaced[] = []
  for (const one of all) {
    if ('host' in one) assignments.push(one)
    else unplaced.push(one)
  }
  return { assignments, unplaced }
}

/** `decisions`, all at once. */
export function plan(world: World): Placement {
  return placementOf(decisions(world))
}
