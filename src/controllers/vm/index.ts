import { isDeepStrictEqual } from 'node:util'
import type { Meter } from '../../lib/measures.ts'
import { misunderstood } from '../../resources/understood.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { refOf } from '../../runtime/informer.ts'
import { passElsewhere, readVm } from './elsewhere.ts'
import { type ExecuteDeps, execute } from './execute.ts'
import { countChange } from './measured.ts'
import { leaveAlone } from './misunderstood.ts'
import { type ObserveDeps, observe } from './observe.ts'
import { plan } from './plan.ts'
import type { Action, Happening, Observed, PlanEnv } from './types.ts'

export interface VmControllerDeps extends ObserveDeps, ExecuteDeps {
  readonly newId: () => string
  readonly meter: Meter
  /** Records a Kubernetes Event; must not reject. */
  readonly tell: (vm: VirtualMachine, happening: Happening) => void
}

/** Actions after which there is something new to see at once, of which nobody tells. */
const changesWhatIsSeen: ReadonlySet<Action['do']> = new Set(['launch', 'dispose', 'live', 'noteSpec'])

/**
 * One pass over one machine: observe, plan, record by compare-and-swap, execute, look again.
 * A conflict while recording ends the pass before anything is touched.
 */
export async function reconcileVm(
  key: string,
  deps: VmControllerDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const vm = await readVm(deps.objects, refOf(key))
  if (!vm) return { next: 'done' }
  if (vm.status?.hostName !== deps.hostName) {
    const { state } = deps.tenure()
    if (state !== 'single') {
      const outcome = await passElsewhere(vm, deps)
      if (outcome !== 'own') return outcome
    } else if (vm.status?.hostName !== undefined) return { next: 'done' }
  }
  const unclear = misunderstood(vm)
  if (unclear !== undefined) return leaveAlone(vm, unclear, deps)
  const seen = await observe(vm, deps)
  signal.throwIfAborted()
  const env: PlanEnv = { now: deps.clock.now(), newId: deps.newId }
  const next = plan(vm, seen, env)
  const unchanged = isDeepStrictEqual(next.status, vm.status) || next.actions[0]?.do === 'addFinalizer'
  const recorded = unchanged
    ? vm
    : await deps.objects.updateStatus(VirtualMachine, { ...vm, status: next.status })
  if (!unchanged) countChange(vm.status, next.status, deps.meter)
  forgetHeard(deps, vm, seen)
  for (const happening of next.happenings) deps.tell(recorded, happening)
  for (const action of next.actions) {
    signal.throwIfAborted()
    await execute(action, recorded, deps)
    // It wrote the object: whatever follows needs the new resourceVersion, so it gets a pass of its own.
    if (action.do === 'addFinalizer' || action.do === 'dropFinalizer') return { next: 'again' }
  }
  const lookAgain = next.actions.some((action) => changesWhatIsSeen.has(action.do))
  if (lookAgain) return { next: 'again' }
  return next.recheckMs === undefined ? { next: 'done' } : { next: 'wait', ms: next.recheckMs }
}

/**
 * What a recorded pass has taken up is told once; what came meanwhile waits for the next, and so does everything while
 * QEMU does not answer.
 */
function forgetHeard({ memories }: VmControllerDeps, vm: VirtualMachine, { heard, process }: Observed): void {
  const taken =
    process.state === 'absent' || (process.state === 'alive' && process.machine.state === 'answered')
  if (heard.length === 0 || !taken) return
  const memory = memories.of(vm.metadata.uid ?? '')
  memory.heard = memory.heard?.filter((one) => !heard.includes(one)) ?? []
}
