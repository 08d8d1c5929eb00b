import type { VirtualMachine, VmAction } from './vm.ts'

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
  const { runStrategy } = vm.spec
  const waiting = vm.status?.request
  if (vm.metadata.deletionTimestamp !== undefined) return { refuse: 'it is being deleted' }
  if (waiting) return { refuse: `${waiting.action} was asked for at ${waiting.at} and is not done yet` }
  const alive = vm.status?.process !== undefined
  const request = { request: { action, ...env } }
  switch (action) {
    case 'Start':
      if (runStrategy === 'Halted') return { spec: { runStrategy: 'Always' } }
      if (alive || runStrategy === 'Always')
        return { refuse: 'it is running, or will be by its run strategy' }
      return request
    case 'Stop':
      if (runStrategy === 'Always') return { spec: { runStrategy: 'Halted' } }
      return alive ? request : { refuse: 'it is not running' }
    case 'Restart':
      if (runStrategy === 'Halted') return { refuse: 'its run strategy is Halted; start it instead' }
      return alive || runStrategy === 'Always' ? request : { refuse: 'it is not running; start it instead' }
    case 'Pause':
      if (vm.status?.pausedByUser) return { refuse: 'it is paused already' }
      return alive ? request : { refuse: 'it is not running' }
    case 'Unpause':
      return vm.status?.phase === 'Paused' ? request : { refuse: 'it is not paused' }
    case 'Reset':
      return alive ? request : { refuse: 'it is not running' }
    case 'Move':
      return vm.status?.hostName === undefined ? { refuse: 'it is on no host' } : request
  }
}
