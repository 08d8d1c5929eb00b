import type { RunStrategy, VirtualMachine, VmAction } from './vm.ts'
import { noWayBack } from './vm-no-way-back.ts'
import { comesBack, currentPower } from './vm-power.ts'

export type ActionDecision =
  | { readonly spec: { readonly runStrategy: 'Always' | 'Halted' } }
  | { readonly request: { readonly action: VmAction; readonly id: string; readonly at: string } }
  | { readonly refuse: string }

/** The verbs of the API, as they stand in its paths. */
export const actionOf: Readonly<Record<string, VmAction>> = {
  start: 'Start',
  stop: 'Stop',
  restart: 'Restart',
  pause: 'Pause',
  unpause: 'Unpause',
  reset: 'Reset',
  move: 'Move',
}

/** What changes a guest that runs, and means nothing for one that is going down: by the end of it there is none. */
const ofTheGuest: ReadonlySet<VmAction> = new Set(['Pause', 'Unpause', 'Reset'])

/**
 * Why an action that was asked for has come too late, as its QEMU is going down or is about to; undefined where it has
 * not. Asked by the API before it takes a request, and by the host before it does what was taken.
 */
export function tooLate(vm: Pick<VirtualMachine, 'spec' | 'status'>, action: VmAction): string | undefined {
  const why = vm.status?.stop?.why
  const staysDown = currentPower(vm, true).desired === 'Down'
  if (why === undefined && !staysDown) return undefined
  if (ofTheGuest.has(action)) return 'it is being stopped'
  if (action === 'Stop') return staysDown ? 'it is being stopped already' : undefined
  if (action === 'Restart' && why !== undefined && comesBack.has(why) && !staysDown)
    return why === 'Move' ? 'it is being stopped, to start on another host' : 'it is being restarted already'
  if (action === 'Restart' || (action === 'Start' && staysDown))
    return 'it is being stopped; start it once it is stopped'
  return undefined
}

/**
 * What an imperative verb does to a machine, as in KubeVirt: start and stop rewrite Always and Halted, whose meaning
 * they contradict, and leave a request for the host otherwise. Move asks the host to shut it down and give it up, so
 * that it is started on another; its run strategy stays.
 */
export function requestAction(
  vm: VirtualMachine,
  action: VmAction,
  env: { readonly id: string; readonly at: string },
): ActionDecision {
  const waiting = vm.status?.request
  if (vm.metadata.deletionTimestamp !== undefined) return { refuse: 'it is being deleted' }
  if (waiting) return { refuse: `${waiting.action} was asked for at ${waiting.at} and is not done yet` }
  const spec = strategyFor(vm.spec.runStrategy, action)
  if (spec) return { spec }
  const refuse = refusalOf(vm, action)
  return refuse === undefined ? { request: { action, ...env } } : { refuse }
}

function strategyFor(
  now: RunStrategy,
  action: VmAction,
): { readonly runStrategy: 'Always' | 'Halted' } | undefined {
  if (action === 'Start' && now === 'Halted') return { runStrategy: 'Always' }
  return action === 'Stop' && now === 'Always' ? { runStrategy: 'Halted' } : undefined
}

function refusalOf(vm: VirtualMachine, action: VmAction): string | undefined {
  const { runStrategy } = vm.spec
  const alive = vm.status?.process !== undefined
  if (action === 'Restart' && runStrategy === 'Halted') return 'its run strategy is Halted; start it instead'
  const late = alive ? tooLate(vm, action) : undefined
  if (late !== undefined) return late
  switch (action) {
    case 'Start':
      if (alive) return 'it is running already'
      return runStrategy === 'Always' ? 'its run strategy starts it; to try at once, restart it' : undefined
    case 'Restart':
      if (!alive) return runStrategy === 'Always' ? undefined : 'it is not running; start it instead'
      return noWayBack(vm)
    case 'Stop':
    case 'Reset':
      return alive ? undefined : 'it is not running'
    case 'Pause':
      if (!alive) return 'it is not running'
      return vm.status?.pausedByUser ? 'it is paused already' : undefined
    case 'Unpause':
      if (!alive) return 'it is not running'
      // Asked to be paused and not seen paused yet counts: else it would be neither paused nor not.
      return vm.status?.pausedByUser || isHeld(vm) ? undefined : 'it is not paused'
    case 'Move':
      return vm.status?.hostName === undefined ? 'it is on no host' : undefined
  }
}

const isHeld = ({ status }: VirtualMachine) => status?.phase === 'Paused'
