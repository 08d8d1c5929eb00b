import { addressOf } from '../../host/qemu-networks.ts'
import { type VirtualMachine, vmFinalizer, vmStatusOf } from '../../resources/vm.ts'
import { currentPower } from '../../resources/vm-power.ts'
import { Draft } from './draft.ts'
import { keepExports } from './exports.ts'
import { describeHostLoss, describeMovable, refuse, takeUp } from './placed.ts'
import { planAbsent } from './plan-absent.ts'
import { planAlive } from './plan-alive.ts'
import { runningSpec } from './plan-live.ts'
import type { Observed, Plan, PlanEnv } from './types.ts'

/** How often an unproven observation is tried again. */
const unknownRecheckMs = 2_000

/**
 * From what is declared and what was seen to the next status and the next safe actions. Pure and total.
 * Status says what was observed; actions are only ever taken on a proven observation (DESIGN section 4, rules 1 to 3).
 */
export function plan(vm: VirtualMachine, seen: Observed, env: PlanEnv): Plan {
  if (vm.metadata.deletionTimestamp === undefined && !vm.metadata.finalizers?.includes(vmFinalizer)) {
    // Before anything of it exists on this host, its object must be unable to vanish.
    return { status: vmStatusOf(vm), actions: [{ do: 'addFinalizer' }], happenings: [] }
  }
  const draft = new Draft(vm, seen, env)
  const taken = takeUp(draft)
  if (taken === 'nobodys') return { status: vmStatusOf(vm), actions: [], happenings: [] }
  describeDisks(draft)
  describeNetworks(draft)
  if (taken === 'refused') {
    refuse(draft)
    return draft.done()
  }
  describeHostLoss(draft)
  describeMovable(draft)

  const { process } = seen
  if (process.state === 'unknown' || process.state === 'duplicate')
    for (const type of ['Paused', 'Synchronized', 'RestartRequired'])
      draft.condition(type, 'Unknown', 'ProcessUnknown')
  switch (process.state) {
    case 'unknown':
      draft.phase('Unknown', 'ProcessUnknown', `whether QEMU runs can't be told: ${process.why}`)
      draft.recheckIn(unknownRecheckMs)
      break
    case 'duplicate': {
      const message = `${process.pids.length} QEMUs carry this machine's uid (pids ${process.pids.join(', ')}); nothing is touched until one is left`
      if (vm.status?.reason !== 'DuplicateProcess') draft.announce('Warning', 'DuplicateProcess', message)
      draft.phase('Unknown', 'DuplicateProcess', message)
      draft.recheckIn(unknownRecheckMs)
      break
    }
    case 'alive':
      draft.status.power = currentPower(vm, true)
      keepExports(draft, process)
      planAlive(draft, process)
      break
    case 'absent':
      draft.status.power = currentPower(vm, false)
      planAbsent(draft)
      break
  }
  return draft.done()
}

/** Of a running machine, those that it runs with. */
function describeNetworks({ status, seen: { process }, vm }: Draft): void {
  const { networks } = (process.state === 'alive' && runningSpec(process)) || vm.spec
  const uid = vm.metadata.uid ?? ''
  status.networks = networks.map((network) => ({ name: network.name, mac: addressOf(network, uid) }))
}

function describeDisks(draft: Draft): void {
  const words = { absent: 'Pending', preparing: 'Preparing', ready: 'Ready', failed: 'Failed' } as const
  draft.status.disks = draft.seen.disks.map(({ state, stale: _, ...disk }) => ({
    ...disk,
    state: words[state],
  }))
  const waiting = draft.seen.disks.filter((disk) => disk.state !== 'ready')
  const failed = waiting.find((disk) => disk.state === 'failed')
  if (failed)
    draft.condition('DisksReady', 'False', 'DiskFailed', `${failed.name}: ${failed.message ?? 'failed'}`)
  else if (waiting.length > 0) {
    draft.condition('DisksReady', 'False', 'Preparing', waiting.map((disk) => disk.name).join(', '))
  } else draft.condition('DisksReady', 'True', 'Ready')
}
