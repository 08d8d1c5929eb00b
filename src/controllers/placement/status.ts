import { type Condition, type ConditionFact, setConditions } from '../../resources/conditions.ts'
import { type VirtualMachine, type VmStatus, vmStatusOf } from '../../resources/vm.ts'
import type { Assignment, Unplaced } from './plan.ts'

/** The condition that is the leader's; all others are kept as they are. */
const owned = 'Scheduled'

function withScheduled(vm: VirtualMachine, fact: Omit<ConditionFact, 'type'>, at: string): Condition[] {
  const before = vm.status?.conditions ?? []
  const [next] = setConditions(before, [{ type: owned, ...fact }], at, vm.metadata.generation ?? 0)
  return next ? [...before.filter(({ type }) => type !== owned), next] : [...before]
}

/** The status of a machine that was given a host. What it waits for next its host says. */
export function placedStatus({ vm, host, epoch }: Assignment, at: string): VmStatus {
  const { message: _, ...status } = vmStatusOf(vm)
  const fact = { status: 'True', reason: 'Placed', message: `on host ${host}` } as const
  return {
    ...status,
    phase: vm.metadata.deletionTimestamp === undefined ? 'Pending' : 'Terminating',
    reason: 'Placed',
    hostName: host,
    placementEpoch: epoch,
    disksHost: host,
    conditions: withScheduled(vm, fact, at),
  }
}

/** The status of a machine that was given none; undefined where it says so already. */
export function unplacedStatus({ vm, reason, message }: Unplaced, at: string): VmStatus | undefined {
  const before = vmStatusOf(vm)
  const told = before.conditions.find(({ type }) => type === owned)
  if (told?.status === 'False' && told.reason === reason && told.message === message) {
    if (reason !== 'Unschedulable' || before.reason === reason) return undefined
  }
  const conditions = withScheduled(vm, { status: 'False', reason, message }, at)
  // A machine that may run is not Pending.
  if (reason !== 'Unschedulable') return { ...before, conditions }
  const phase = vm.metadata.deletionTimestamp === undefined ? 'Pending' : 'Terminating'
  return { ...before, phase, reason, message, conditions }
}

/** Whether a machine is said to be unplaced for this reason already, whatever the numbers. */
export function isToldOf({ vm, reason }: Unplaced): boolean {
  return vm.status?.conditions.some((one) => one.type === owned && one.reason === reason) ?? false
}

/**
 * A machine that was not given its host, but taken up by it: what of its disks only that host has is there. Undefined
 * where that is noted, or there is no host.
 */
export function notedStatus(vm: VirtualMachine, at: string): VmStatus | undefined {
  const { status } = vm
  if (status?.hostName === undefined || status.disksHost !== undefined) return undefined
  const fact = { status: 'True', reason: 'TakenUp', message: `by host ${status.hostName}` } as const
  return { ...status, disksHost: status.hostName, conditions: withScheduled(vm, fact, at) }
}
