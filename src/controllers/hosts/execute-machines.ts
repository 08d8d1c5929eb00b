import { type Clock, rfc3339 } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import type { Meter } from '../../lib/measures.ts'
import type { KubeObject, ResourceDefinition } from '../../resources/define.ts'
import { FenceEvidence } from '../../resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../../resources/host-lease.ts'
import { Lease, StoragePool } from '../../resources/kinds.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { mayRun } from '../../resources/vm-power.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { isOf, noted } from './evidence.ts'
import {
  byPriority,
  type GivenUp,
  hostWords,
  isMarked,
  isStranded,
  markedStatus,
  mayGiveUp,
  takenStatus,
  whyNotTaken,
} from './machines.ts'
import type { LostHost } from './memory.ts'
import type { Action, EvidenceSpec, Happening } from './types.ts'

export interface MachineDeps {
  readonly objects: ObjectStore
  readonly tell: (kind: ResourceDefinition, about: KubeObject, happening: Happening) => void
  readonly clock: Clock
  readonly log: Log
  readonly meter?: Meter
}

/** How often a machine that others write to meanwhile is looked at anew before the next pass does. */
const tries = 5

/** The machine as it is now; undefined where it, or the one by that name, is gone. */
async function fresh(vm: VirtualMachine, { objects }: MachineDeps): Promise<VirtualMachine | undefined> {
  const { name, namespace, uid } = vm.metadata
  try {
    const now = await objects.get(VirtualMachine, { name, ...(namespace !== undefined && { namespace }) })
    return now.metadata.uid === uid ? now : undefined
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

/**
 * Reads the machine and writes the status that `next` makes of it, by compare-and-swap; anew after a conflict.
 * @returns the machine as written, or undefined where `next` wants nothing of it as it is now
 */
async function change(
  vm: VirtualMachine,
  next: (now: VirtualMachine) => VirtualMachine['status'],
  deps: MachineDeps,
): Promise<VirtualMachine | undefined> {
  for (let left = tries; ; left -= 1) {
    const now = await fresh(vm, deps)
    const status = now && next(now)
    if (!now || !status) return undefined
    try {
      return await deps.objects.updateStatus(VirtualMachine, { ...now, status })
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      if (!isReason(error, 'Conflict') || left <= 1) throw error
    }
  }
}

/** One that fails must not keep the others: the first error is thrown when all had their turn. */
async function each<T>(
  all: readonly T[],
  signal: AbortSignal,
  work: (one: T) => Promise<void>,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined
  for (const one of all) {
    signal.throwIfAborted()
    try {
      await work(one)
    } catch (error) {
      failure ??= { error }
    }
  }
  if (failure) throw failure.error
}

export async function markMachines(
  machines: Extract<Action, { do: 'mark' }>['machines'],
  host: string,
  memory: LostHost,
  deps: MachineDeps,
  signal: AbortSignal,
): Promise<void> {
  const at = rfc3339(deps.clock.now())
  await each(machines, signal, async ({ vm, as }) => {
    // Once for now, come what may: marking is for people, and holds nothing up.
    memory.mark(deps.clock.elapsed(), vm.metadata.uid ?? '', as.key)
    const marked = await change(
      vm,
      (now) => (now.status?.hostName === host && !isMarked(now, as) ? markedStatus(now, as, at) : undefined),
      deps,
    )
    if (marked) deps.tell(VirtualMachine, marked, { type: 'Warning', reason: as.reason, message: as.message })
  })
}

async function leave(
  machines: readonly VirtualMachine[],
  host: string,
  why: {
    readonly reason: GivenUp
    readonly evidence?: EvidenceSpec
    readonly goes: (now: VirtualMachine) => boolean
  },
  memory: LostHost,
  deps: MachineDeps,
  signal: AbortSignal,
): Promise<void> {
  const at = rfc3339(deps.clock.now())
  await each(machines, signal, async (vm) => {
    let ran = false
    const left = await change(
      vm,
      (now) => {
        ran = mayRun(now)
        if (!why.goes(now)) return undefined
        return takenStatus(now, host, at, ran ? why.evidence : undefined, why.reason)
      },
      deps,
    )
    memory.handled.set(vm.metadata.uid ?? '', vm.metadata.resourceVersion ?? '')
    if (!left) return
    deps.meter?.add('plasmavmc_failovers_total', { reason: ran ? 'Fenced' : why.reason })
    const message = ran
      ? `taken from ${host}, which is proven dead: evidence ${left.status?.evidence}`
      : `given up by ${host}, which ${hostWords[why.reason]}; nothing of it runs there`
    deps.tell(VirtualMachine, left, { type: 'Warning', reason: why.reason, message })
    deps.log.warn('machine leaves its host', {
      ...{ host, reason: why.reason },
      uid: left.metadata.uid,
      evidence: left.status?.evidence,
    })
  })
}

const poolsOf = async ({ objects }: MachineDeps) => (await objects.list(StoragePool)).items

export async function giveUpMachines(
  { machines, why: reason }: Extract<Action, { do: 'giveUp' }>,
  host: string,
  memory: LostHost,
  deps: MachineDeps,
  signal: AbortSignal,
): Promise<void> {
  const pools = await poolsOf(deps)
  const may = reason === 'AgentSilent' ? isStranded : mayGiveUp
  const goes = (now: VirtualMachine) => may(now, host, pools)
  await leave(machines, host, { reason, goes }, memory, deps, signal)
}

/**
 * Takes machines from a host that is proven dead. The order of the reads is what makes it safe: the lease and its
 * evidence first, each machine after that.
 */
export async function takeMachines(
  { evidence: name, machines }: Extract<Action, { do: 'takeMachines' }>,
  host: string,
  memory: LostHost,
  deps: MachineDeps,
  signal: AbortSignal,
): Promise<void> {
  const { objects } = deps
  const stored = await objects.get(FenceEvidence, { name })
  const lease = await objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(host) })
  const proven = noted(lease, host)
  if (!proven || !isOf(stored, proven)) return deps.log.warn('the host is back, or fenced anew', { host })
  const pools = await poolsOf(deps)
  const goes = (now: VirtualMachine) => whyNotTaken(now, stored.spec, pools) === undefined
  await leave(
    [...machines].sort(byPriority),
    host,
    { reason: 'HostLost', evidence: stored.spec, goes },
    memory,
    deps,
    signal,
  )
}
