import { homeOf } from '../../resources/adopted.ts'
import type { Draft } from './draft.ts'
import { runningSpec } from './plan-live.ts'

/** Who kept it away may go, and tells nobody. */
const refusedRecheckMs = 10_000

/**
 * Whether the machine is this host's own, which the draft then says. On a store of its own a host takes every machine
 * that it is open to. In a cluster one without a host is given one by the leader; only where its QEMU runs here already
 * (it was adopted, or its status was lost) the host takes it up itself.
 */
export function takeUp(draft: Draft): 'own' | 'refused' | 'nobodys' {
  const { status, seen } = draft
  const { tenure } = seen
  if (status.hostName === undefined) {
    if (tenure.state === 'single') {
      const unseen = seen.process.state === 'absent' && !draft.deleting
      if (unseen && seen.refusal !== undefined) return 'refused'
    } else if (tenure.state === 'lost' || !isHere(draft)) return 'nobodys'
  }
  status.hostName ??= seen.hostName
  if (tenure.state !== 'held') return 'own'
  if (tenure.epoch >= (status.placementEpoch ?? 0)) status.placementEpoch = tenure.epoch
  return 'own'
}

/** Whether its QEMU runs here, or did when the machine was made for it: no other host is given that one. */
function isHere({ vm, seen }: Draft): boolean {
  if (seen.process.state === 'alive') return true
  return seen.process.state === 'absent' && homeOf(vm) === seen.hostName
}

export function refuse(draft: Draft): void {
  draft.phase('Pending', 'Unschedulable', draft.seen.refusal)
  draft.recheckIn(refusedRecheckMs)
}

/**
 * What is to be done with the machine when the host is lost, as far as that can be promised: not that it may be started
 * elsewhere once its QEMU is dead, where writes to its exports may still arrive then. A host that is known to be off sends
 * nothing: then `spec.recovery` counts.
 */
export function promised({ seen, vm }: Draft): 'Manual' | 'Failover' {
  return seen.lateWrites === undefined ? vm.spec.recovery.onHostLoss : 'Manual'
}

/**
 * Says what would be done with the machine if the host were lost: `Failover` only once both the spec and launch.json,
 * which the guard goes by, say so. So it is `Manual` again before launch.json is, which is rewritten after this is recorded.
 */
export function describeHostLoss(draft: Draft): void {
  const { status, seen } = draft
  if (seen.tenure.state === 'single') return
  const wanted = promised(draft)
  if (seen.process.state === 'alive') {
    const known = runningSpec(seen.process)?.recovery?.onHostLoss
    status.onHostLoss = known === 'Failover' ? wanted : 'Manual'
  } else if (status.onHostLoss !== undefined && wanted === 'Manual') status.onHostLoss = 'Manual'
}

/** Says whether the machine can be started on another host. On a store without other hosts only once that was asked. */
export function describeMovable(draft: Draft): void {
  const asked = draft.vm.status?.conditions.some(({ type }) => type === 'Movable')
  if (draft.seen.tenure.state === 'single' && !asked) return
  const why = moveRefusal(draft)
  if (why) draft.condition('Movable', 'False', why.reason, why.message)
  else draft.condition('Movable', 'True', 'ReachableDisks')
}

/** Why the machine can't be started on another host; undefined where it can. */
export function moveRefusal({
  seen,
}: Draft): { readonly reason: string; readonly message: string } | undefined {
  if (seen.tenure.state === 'single')
    return { reason: 'SingleHost', message: 'there is no other host: the store is only this one’s' }
  if (seen.localDisks.length === 0) return undefined
  const fields = seen.localDisks.map(({ field }) => field).join(', ')
  return { reason: 'LocalDisks', message: `${fields}: only host ${seen.hostName} has what is on it` }
}

/** Takes up a request to move. @returns whether it is granted */
export function grantMove(draft: Draft): boolean {
  const why = moveRefusal(draft)
  if (!why) return true
  draft.tell('Warning', 'MoveRefused', `the machine stays on host ${draft.seen.hostName}: ${why.message}`)
  draft.condition('Movable', 'False', why.reason, why.message)
  return false
}

/** Gives up a machine that has no process: whoever places machines finds it another host. */
export function giveUp(draft: Draft): void {
  const { status, seen } = draft
  const { hostName } = seen
  for (const member of [
    'hostName',
    'placementEpoch',
    'process',
    'launch',
    'onHostLoss',
    'exports',
    'stop',
    'request',
  ] as const)
    delete status[member]
  draft.phase('Pending', 'Moving', `host ${hostName} has stopped it and given it up; it waits for another`)
  draft.tell('Normal', 'GivenUp', `it does not run, and host ${hostName} has given it up`)
  draft.act({ do: 'relinquish' })
}
