import type { RunState } from '../../../src/qmp/types.ts'
import type { GuestAct } from './script.ts'

type Data = Readonly<Record<string, unknown>>

/** What QEMU does when the guest shuts down, reboots or panics, and when its watchdog fires: `-action`. */
export const actionValues: Readonly<Record<string, readonly string[]>> = {
  reboot: ['reset', 'shutdown'],
  shutdown: ['poweroff', 'pause'],
  panic: ['pause', 'shutdown', 'exit-failure', 'none'],
  watchdog: ['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi'],
}

/** Run states that only a reset leads out of (runstate_needs_reset of QEMU's softmmu/runstate.c). */
const needsReset: ReadonlySet<RunState> = new Set(['internal-error', 'shutdown'])

export class ResetRequired extends Error {}

/** A block device of the guest's, by its id and the node below it. */
export interface Disk {
  readonly id: string
  readonly node: string
  status: 'ok' | 'failed' | 'nospace'
}

export interface MachineHooks {
  readonly emit: (event: string, data?: Data) => void
  /** Called whenever the guest begins to run. */
  readonly resumed: () => void
  readonly exit: (code: number) => void
}

/** The run state of a QEMU 7.2 and what moves it. Without a guest: a test says what that does. */
export class Machine {
  state: RunState = 'prelaunch'
  readonly actions = new Map<string, string>(Object.entries({ reboot: 'reset', shutdown: 'poweroff' }))
  readonly disks: readonly Disk[]
  readonly #hooks: MachineHooks

  constructor(hooks: MachineHooks, disks: readonly Disk[] = []) {
    this.#hooks = hooks
    this.disks = disks
    this.actions.set('panic', 'shutdown').set('watchdog', 'reset')
  }

  get running(): boolean {
    return this.state === 'running'
  }

  /** @throws ResetRequired */
  cont(): void {
    if (needsReset.has(this.state)) throw new ResetRequired('Resetting the Virtual Machine is required')
    if (this.running) return
    for (const disk of this.disks) disk.status = 'ok'
    this.state = 'running'
    this.#hooks.emit('RESUME')
    this.#hooks.resumed()
  }

  stop(state: RunState = 'paused'): void {
    if (!this.running) return
    this.state = state
    this.#hooks.emit('STOP')
  }

  reset(guest: boolean): void {
    const reason = guest ? 'guest-reset' : 'host-qmp-system-reset'
    this.#hooks.emit('RESET', { guest, reason })
    if (!this.running) this.state = 'prelaunch'
  }

  powerdown(obeyed: boolean): void {
    this.#hooks.emit('POWERDOWN')
    if (obeyed && this.running) this.#shutdown('guest-shutdown')
  }

  quit(reason: 'host-qmp-quit' | 'host-signal'): void {
    this.#hooks.emit('SHUTDOWN', { guest: false, reason })
    this.#hooks.exit(0)
  }

  /** A guest that does not run does nothing. */
  act(act: GuestAct): void {
    if (!this.running) return
    switch (act) {
      case 'poweroff':
        return this.#shutdown('guest-shutdown')
      case 'reboot':
        return this.actions.get('reboot') === 'shutdown' ? this.#shutdown('guest-reset') : this.reset(true)
      case 'panic':
        return this.#panic()
      case 'watchdog':
        return this.#watchdog()
      case 'io-error':
        return this.#ioError()
      case 'internal-error':
        return this.stop('internal-error')
    }
  }

  /** The first disk finds its storage full. */
  #ioError(): void {
    const [disk] = this.disks
    if (disk) disk.status = 'nospace'
    this.#hooks.emit('BLOCK_IO_ERROR', {
      ...{ device: '', 'node-name': disk?.node ?? '', operation: 'write', action: 'stop', nospace: true },
      reason: 'No space left on device',
    })
    this.stop('io-error')
  }

  #shutdown(reason: string): void {
    this.#hooks.emit('SHUTDOWN', { guest: true, reason })
    if (this.actions.get('shutdown') === 'pause') this.stop('shutdown')
    else this.#hooks.exit(0)
  }

  #panic(): void {
    const action = this.actions.get('panic') ?? 'shutdown'
    const shown = action === 'pause' ? 'pause' : action === 'none' ? 'run' : 'poweroff'
    this.#hooks.emit('GUEST_PANICKED', { action: shown })
    if (action === 'pause') this.stop('guest-panicked')
    else if (action === 'exit-failure') this.#hooks.exit(1)
    else if (action === 'shutdown') this.#shutdown('guest-panic')
  }

  #watchdog(): void {
    const action = this.actions.get('watchdog') ?? 'reset'
    this.#hooks.emit('WATCHDOG', { action })
    if (action === 'reset') this.reset(true)
    else if (action === 'pause') this.stop('watchdog')
    else if (action === 'poweroff') this.#hooks.exit(0)
    else if (action === 'shutdown') this.powerdown(true)
  }
}
