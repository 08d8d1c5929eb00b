import type { ExitReason, RunStrategy, VirtualMachine, VmStatus } from './vm.ts'

type Power = NonNullable<VmStatus['power']>

/** Exits that a person or the guest meant. */
export const cleanExits: ReadonlySet<ExitReason> = new Set(['GuestShutdown', 'Stopped'])

/** Reasons of `status.stop` after which a machine is to be as before: up again, here or on another host. */
export const comesBack: ReadonlySet<string> = new Set(['Restart', 'Move'])

/**
 * What a strategy wants at first: a machine that runs is left as it is, except by Always and Halted.
 * KubeVirt's meanings: docs "Run Strategies" of its user guide.
 */
function initial(strategy: RunStrategy, alive: boolean): Power['desired'] {
  switch (strategy) {
    case 'Always':
    case 'RerunOnFailure':
    case 'Once':
      return 'Up'
    case 'Halted':
      return 'Down'
    case 'Manual':
      return alive ? 'Up' : 'Down'
  }
}

/** Whether a QEMU of it runs, or may, on the host it is placed on: each launch is recorded before it is made. */
export const mayRun = ({ status }: VirtualMachine): boolean =>
  status?.launch !== undefined || status?.process !== undefined

/**
 * Whether the machine should be up, before requests and exits of this pass: kept while the strategy stays. Always and
 * Halted say it themselves, whatever a status says.
 */
export function currentPower(vm: Pick<VirtualMachine, 'spec' | 'status'>, alive: boolean): Power {
  const strategy = vm.spec.runStrategy
  if (strategy === 'Always' || strategy === 'Halted') return { strategy, desired: initial(strategy, alive) }
  const kept = vm.status?.power
  if (kept?.strategy === strategy) return kept
  return { strategy, desired: initial(strategy, alive) }
}

/** What an exit makes of it. `asked` is set when a stop was asked for; a restart asks for being up again. */
export function powerAfterExit(power: Power, exit: ExitReason, asked: 'Stop' | 'Restart' | undefined): Power {
  if (asked === 'Restart') return power
  switch (power.strategy) {
    case 'Always':
    case 'Halted':
      return power
    case 'RerunOnFailure':
      return cleanExits.has(exit) ? { ...power, desired: 'Down' } : power
    case 'Once':
    case 'Manual':
      return { ...power, desired: 'Down' }
  }
}

/** What a request makes of it. Always and Halted are statements about the spec, which a request does not overrule. */
export function powerAfterRequest(power: Power, desired: Power['desired']): Power {
  return power.strategy === 'Always' || power.strategy === 'Halted' ? power : { ...power, desired }
}
