import type { LaunchRecord } from '../host/ports.ts'
import type { QmpEvent, RunState } from '../qmp/types.ts'

/** Who ended a QEMU: the system (which of its processes), the guest or its own command, or somebody else. */
export type Ender = 'agent' | 'guard' | 'quit' | 'outside' | 'power'

/** A QEMU of the simulated world: what /proc shows of it, and the state of its guest. */
export class SimQemu {
  readonly pid: number
  readonly startTime: number
  readonly bootId: string
  readonly record: LaunchRecord
  /** Started by somebody else: it has no mark of ours. */
  foreign = false
  /** Started with -S: the guest does not run before it is told to. */
  state: RunState = 'prelaunch'
  /** Stopped by a signal: neither guest nor monitor do anything. */
  stopped = false
  /** In uninterruptible sleep (D), as when its storage hangs: it stands still, and a signal that kills waits. */
  stuck = false
  /** Who has sent SIGKILL to it while it was stuck. */
  doomedBy: Ender | undefined
  /** The guest takes no notice of the power button. */
  deaf = false
  /** Nobody gets an answer from its monitor. */
  mute = false
  alive = true
  /** Commands that reached its socket while it was stopped. */
  readonly inbox: (() => void)[] = []

  constructor(pid: number, startTime: number, record: LaunchRecord) {
    this.pid = pid
    this.startTime = startTime
    this.bootId = record.bootId
    this.record = record
  }

  /** It does nothing at all, and answers nobody. */
  get still(): boolean {
    return this.stopped || this.stuck
  }

  get uid(): string {
    return this.record.manifest.metadata.uid ?? ''
  }

  get name(): string {
    const { namespace, name } = this.record.manifest.metadata
    return `${namespace}/${name}`
  }
}

const timestamp = { seconds: -1, microseconds: -1 }

/** What QEMU tells of a change of its state. */
export function eventOf(state: RunState): QmpEvent {
  if (state === 'running') return { event: 'RESUME', timestamp }
  if (state === 'shutdown')
    return { event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' }, timestamp }
  return { event: 'STOP', timestamp }
}
