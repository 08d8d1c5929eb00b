import { setImmediate as turn } from 'node:timers/promises'
import { type Clock, rfc3339 } from '../../lib/clock.ts'
import { messageOf } from '../../lib/errors.ts'
import type { Log } from '../../lib/log.ts'
import type { Meter } from '../../lib/measures.ts'
import { hostLeaseName, systemNamespace } from '../../resources/host-lease.ts'
import type { Host, Lease, StoragePool } from '../../resources/kinds.ts'
import { VirtualMachine, type VmStatus } from '../../resources/vm.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'
import type { Assumed } from './assumed.ts'
import {
  type Assignment,
  compare,
  decisions,
  type Placement,
  placementOf,
  type Unplaced,
  type World,
} from './plan.ts'
import { heldEpoch } from './room.ts'
import { isToldOf, notedStatus, placedStatus, unplacedStatus } from './status.ts'

/** Something for people, recorded as a Kubernetes Event. */
export interface Happening {
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  readonly message: string
}

export interface PlacementDeps {
  /** The leader's: it refuses writes once another leads. */
  readonly objects: ObjectStore
  readonly vms: Informer<VirtualMachine>
  readonly hosts: Informer<Host>
  readonly pools: Informer<StoragePool>
  readonly leases: Informer<Lease>
  readonly assumed: Assumed
  /** When a machine was last said to be unplaced, monotonic ms by key. */
  readonly told: Map<string, number>
  /** Records a Kubernetes Event; must not reject. */
  readonly tell: (vm: VirtualMachine, happening: Happening) => void
  readonly clock: Clock
  readonly log: Log
  readonly meter?: Meter
  /** How many machines no host took at the last pass, for who measures it. */
  readonly left?: (unplaced: number) => void
}

/** Writes under way at once: a store answers each in milliseconds, and one host's loss makes hundreds. */
const writesAtOnce = 16
/** Longest stretch of deciding without a pause. */
const mostMs = 20
/** Of a machine that stays unplaced only the numbers change with every other machine: they are written this often. */
const retellMs = 10_000
/** Where thousands stay unplaced, one machine changes the numbers of all: so many are told of in that time, then others. */
const mostRetold = 200

interface Write {
  readonly vm: VirtualMachine
  readonly status: VmStatus
  readonly happening?: Happening
  /** Whether it gives a host. */
  readonly assigns: boolean
}

/** What is in the copies, with what this leader has written since. */
function worldOf({ vms, hosts, pools, leases, assumed, clock }: PlacementDeps): World {
  const all = hosts.list()
  return {
    machines: assumed.over(vms.list()),
    ...{ hosts: all, pools: pools.list(), now: clock.now() },
    leases: new Map(
      all.flatMap(({ metadata }) => {
        const name = hostLeaseName(metadata.name)
        const lease = leases.get(keyOf({ metadata: { namespace: systemNamespace, name } }))
        return lease ? [[name, lease] as const] : []
      }),
    ),
  }
}

/**
 * One pass over all machines: decide on the copies, write by compare-and-swap. A write that loses is decided anew once
 * the copy shows what won; one whose outcome is not known is sent again as it was. Nothing is written that is not new.
 * @throws the first failure that is neither; what was decided and not sent is decided anew
 */
export async function place(deps: PlacementDeps, signal: AbortSignal): Promise<Outcome> {
  const { clock, assumed } = deps
  // A part of the machines looks like free hosts.
  if (![deps.vms, deps.hosts, deps.pools, deps.leases].every(({ synced }) => synced))
    return { next: 'wait', ms: 1_000 }
  const world = worldOf(deps)
  await resend(world, deps, signal)
  const settled = { ...world, machines: assumed.over(deps.vms.list()) }
  const { assignments, unplaced } = await decide(settled, deps, signal)
  const at = rfc3339(clock.now())
  const writes: Write[] = [
    ...assignments.map((one) => ({
      ...{ vm: one.vm, status: placedStatus(one, at), assigns: true },
      happening: { type: 'Normal', reason: 'Scheduled', message: `placed on host ${one.host}` } as const,
    })),
    ...tellings(unplaced, at, deps),
    ...settled.machines.flatMap((vm) => {
      const status = notedStatus(vm, at)
      return status ? [{ vm, status, assigns: false }] : []
    }),
  ]
  deps.left?.(unplaced.length)
  deps.meter?.add('plasmavmc_placement_attempts_total', { result: 'unplaced' }, unplaced.length)
  const refused = await writeAll(writes, deps, signal)
  // What lets a machine in is told by the copies, but for the end of a maintenance.
  return unplaced.length > 0 || refused > 0 ? { next: 'wait', ms: retellMs } : { next: 'done' }
}

/** Thousands of machines take seconds: in between the lease is renewed, requests are answered, and a stop is heard. */
async function decide(world: World, { clock }: PlacementDeps, signal: AbortSignal): Promise<Placement> {
  const all: (Assignment | Unplaced)[] = []
  let began = clock.elapsed()
  for (const one of decisions(world)) {
    all.push(one)
    if (clock.elapsed() - began < mostMs) continue
    await turn()
    signal.throwIfAborted()
    began = clock.elapsed()
  }
  return placementOf(all)
}

/** Sends again what may have been written, unless its host is none any more: then it is decided anew. */
async function resend(world: World, deps: PlacementDeps, signal: AbortSignal): Promise<void> {
  const writes: Write[] = []
  for (const { base, next } of deps.assumed.unsettled) {
    const { hostName = '', placementEpoch } = next.status as VmStatus
    if (heldEpoch(hostName, world.leases.get(hostLeaseName(hostName))) !== placementEpoch)
      deps.assumed.drop(base)
    else writes.push({ vm: base, status: next.status as VmStatus, assigns: true })
  }
  await writeAll(writes, deps, signal)
}

/** What is to be written of machines that no host takes. */
function tellings(unplaced: readonly Unplaced[], at: string, { told, clock }: PlacementDeps): Write[] {
  const now = clock.elapsed()
  const before = new Map(told)
  told.clear()
  const news: Write[] = []
  const numbers: { readonly key: string; readonly write: Write }[] = []
  for (const one of unplaced) {
    const key = keyOf(one.vm)
    const last = before.get(key)
    if (last !== undefined) told.set(key, last)
    const status = unplacedStatus(one, at)
    if (!status) continue
    const write = { vm: one.vm, status, assigns: false }
    if (isToldOf(one)) {
      numbers.push({ key, write })
      continue
    }
    told.set(key, now)
    const happening = { type: 'Warning', reason: 'FailedScheduling', message: one.message } as const
    // That an adopted machine waits for its host is no failure.
    news.push({ ...write, ...(one.reason !== 'Adopted' && { happening }) })
  }
  const lastOf = (key: string) => told.get(key) ?? Number.NEGATIVE_INFINITY
  const recent = [...told.values()].filter((last) => now - last < retellMs).length
  const due = numbers
    .filter(({ key }) => now - lastOf(key) >= retellMs)
    .sort((x, y) => compare(lastOf(x.key), lastOf(y.key)))
    .slice(0, Math.max(0, mostRetold - recent))
  for (const { key } of due) told.set(key, now)
  return [...news, ...due.map(({ write }) => write)]
}

/**
 * Some at a time, in order; the first that fails for a reason that is not its own is the last.
 * @returns how many the store refused for what is in them
 */
async function writeAll(writes: readonly Write[], deps: PlacementDeps, signal: AbortSignal): Promise<number> {
  const waiting = writes.values()
  let failed = false
  let refused = 0
  const work = async () => {
    for (const one of waiting) {
      if (failed) return
      signal.throwIfAborted()
      const done = await write(one, deps).catch((error: unknown) => {
        failed = true
        throw error
      })
      if (!done) refused += 1
    }
  }
  const results = await Promise.allSettled(Array.from({ length: writesAtOnce }, work))
  const failure = results.find((result) => result.status === 'rejected')
  if (failure) throw failure.reason
  return refused
}

/** @returns false where the store refuses what is in it */
async function write({ vm, status, happening, assigns }: Write, deps: PlacementDeps): Promise<boolean> {
  const { objects, assumed, log, tell } = deps
  const key = keyOf(vm)
  const wanted = { ...vm, status }
  // Before it is sent: a pass that is cut off must not forget it.
  if (assigns) assumed.note(vm, wanted, false)
  try {
    const written = await objects.updateStatus(VirtualMachine, wanted)
    assumed.note(vm, written, true)
    if (happening) tell(written, happening)
    if (assigns) deps.meter?.add('plasmavmc_placement_attempts_total', { result: 'placed' })
    if (assigns) log.info('placed', { vm: key, host: status.hostName, epoch: status.placementEpoch })
    return true
  } catch (error) {
    if (isReason(error, 'Conflict') || isReason(error, 'NotFound')) {
      // Until the copy shows what is there instead, it may be this very write, sent before.
      if (assigns) assumed.note(vm, wanted, true)
      log.debug('not written: it was changed meanwhile', { vm: key })
      return true
    }
    if (!isReason(error, 'Invalid') && !isReason(error, 'RequestEntityTooLarge')) throw error
    assumed.drop(vm)
    deps.meter?.add('plasmavmc_placement_attempts_total', { result: 'refused' })
    log.error('status refused', { vm: key, message: messageOf(error) })
    return false
  }
}
