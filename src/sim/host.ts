import type { GuardRecord } from '../host/guard-file.ts'
import type { LaunchRecord, ProcessExit } from '../host/ports.ts'
import type { RunState } from '../qmp/types.ts'
import { type HostTime, SimProcess, type Timeline } from './clock.ts'
import { type Ender, eventOf, SimQemu } from './qemu.ts'
import type { Random } from './random.ts'

/** What happens in truth, for rules and logs. */
export interface Witness {
  /** A guest runs, or no longer runs. */
  guest(host: SimHost, qemu: SimQemu): void
  launched(host: SimHost, qemu: SimQemu): void
  ended(host: SimHost, qemu: SimQemu, by: Ender): void
}

/** How long a guest takes to power down, ms. */
const powerdownMs = 800

type RoleName = 'agent' | 'guard'

/** A machine that runs machines: its processes, QEMUs and files, and the button that switches it off. */
export class SimHost {
  readonly name: string
  readonly runDir: string
  readonly time: HostTime
  readonly labels: Record<string, string>
  readonly cpus: number
  readonly memory: string
  /** What its guard promises, as `--fencing` has it. */
  selfFence: 'none' | 'guard' = 'guard'
  bootId = ''
  on = false
  /** Everything on it stands still. */
  paused = false
  /** When it last went on after a stand-still, and how long that was, ms of the world. */
  resumed: { readonly at: number; readonly afterMs: number } | undefined
  /** What /proc holds and, where its QEMUs can't be told, why. */
  readonly qemus = new Map<number, SimQemu>()
  blind: string | undefined
  /** Run directory: gone at a boot. */
  readonly records = new Map<string, LaunchRecord>()
  guardRecord: GuardRecord | undefined
  agentSign: { readonly bootId: string; readonly aliveAt: number } | undefined
  /** Files of disks in pools that only this host has. */
  readonly disks = new Set<string>()
  agent: SimProcess | undefined
  guard: SimProcess | undefined
  #nextPid = 1_000
  #boots = 0
  #pausedAt = 0
  readonly #timeline: Timeline
  readonly #random: Random
  readonly #witness: Witness
  readonly #exits = new Set<(exit: ProcessExit) => void>()
  readonly #changes = new Set<(uid: string, what: RunState | 'closed') => void>()

  constructor(
    facts: {
      readonly name: string
      readonly time: HostTime
      readonly labels: Record<string, string>
      readonly cpus: number
      readonly memory: string
    },
    timeline: Timeline,
    random: Random,
    witness: Witness,
  ) {
    this.name = facts.name
    this.time = facts.time
    this.labels = facts.labels
    this.cpus = facts.cpus
    this.memory = facts.memory
    this.runDir = `/run/plasmavmc`
    this.#timeline = timeline
    this.#random = random
    this.#witness = witness
  }

  /** Whether the guest of a QEMU of this host gets the processor. */
  runs(qemu: SimQemu): boolean {
    return qemu.alive && this.on && !this.paused && !qemu.still && qemu.state === 'running'
  }

  boot(): void {
    if (this.on) return
    this.on = true
    this.paused = false
    this.#boots += 1
    this.time.bootedAt = this.#timeline.now
    this.bootId = `boot-${this.name}-${this.#boots}`
    this.records.clear()
    this.guardRecord = undefined
    this.agentSign = undefined
  }

  /** The power goes: processes and QEMUs are gone at once, disks stay. */
  powerOff(): void {
    this.on = false
    this.paused = false
    for (const qemu of [...this.qemus.values()]) this.#gone(qemu, 'power')
    this.agent?.kill()
    this.guard?.kill()
    this.agent = undefined
    this.guard = undefined
    this.#exits.clear()
    this.#changes.clear()
  }

  /** Everything stands still, or goes on. */
  pause(on: boolean): void {
    if (!this.on || this.paused === on) return
    this.paused = on
    for (const process of [this.guard, this.agent]) {
      if (on) process?.stop('host')
      else process?.cont('host')
    }
    if (on) this.#pausedAt = this.#timeline.now
    else this.resumed = { at: this.#timeline.now, afterMs: this.#timeline.now - this.#pausedAt }
    for (const qemu of this.qemus.values()) {
      this.#witness.guest(this, qemu)
      if (!on) this.#answer(qemu)
    }
  }

  /** Starts a process of a role in place of the one before. */
  process(role: RoleName): SimProcess {
    this[role]?.kill()
    const process = new SimProcess(`${role} of ${this.name}`, this.#timeline, this.time)
    if (this.paused) process.stop('host')
    this[role] = process
    if (role === 'agent') {
      this.#exits.clear()
      this.#changes.clear()
    }
    return process
  }

  /** Forks a QEMU. */
  fork(record: LaunchRecord): SimQemu {
    const startTime = Math.floor(this.#timeline.now / 10) + 1
    const qemu = new SimQemu(this.#nextPid++, startTime, record)
    this.qemus.set(qemu.pid, qemu)
    this.#witness.launched(this, qemu)
    return qemu
  }

  /** Ends a QEMU; one that is stuck ends when it no longer is. */
  end(qemu: SimQemu, by: Ender): void {
    if (qemu.stuck) {
      qemu.doomedBy ??= by
      return
    }
    this.#gone(qemu, by)
    const { pid, startTime, bootId, uid } = qemu
    const how = by === 'quit' ? { exitCode: 0 } : { signal: 'SIGKILL' }
    const exit = { uid, launchId: qemu.record.launchId, identity: { pid, startTime, bootId }, ...how }
    for (const tell of [...this.#exits]) tell({ ...exit, output: '' })
    for (const tell of [...this.#changes]) tell(uid, 'closed')
  }

  #gone(qemu: SimQemu, by: Ender): void {
    if (!qemu.alive) return
    qemu.alive = false
    this.qemus.delete(qemu.pid)
    this.#witness.ended(this, qemu, by)
  }

  /** A QEMU dies and nobody reaps it: who waits for its end is not told, and /proc shows a process that has ended. */
  zombie(qemu: SimQemu): void {
    this.#gone(qemu, 'outside')
    for (const tell of [...this.#changes]) tell(qemu.uid, 'closed')
  }

  /** A QEMU falls into uninterruptible sleep, or wakes up. */
  hang(qemu: SimQemu, on: boolean): void {
    if (!qemu.alive || qemu.stuck === on) return
    qemu.stuck = on
    if (!on && qemu.doomedBy) return this.end(qemu, qemu.doomedBy)
    this.#witness.guest(this, qemu)
    if (!on) this.#answer(qemu)
  }

  /** A QEMU dies, and somebody else's gets its pid. */
  replace(qemu: SimQemu): void {
    this.end(qemu, 'outside')
    const manifest = {
      ...qemu.record.manifest,
      metadata: { name: 'other', namespace: 'foreign', uid: 'other' },
    }
    const other = new SimQemu(qemu.pid, qemu.startTime + 100, { ...qemu.record, manifest })
    other.foreign = true
    other.state = 'running'
    this.qemus.set(other.pid, other)
  }

  /** SIGSTOP and SIGCONT of a QEMU. */
  freeze(qemu: SimQemu, on: boolean): void {
    qemu.stopped = on
    this.#witness.guest(this, qemu)
    if (!on) this.#answer(qemu)
  }

  /** A command of its monitor, or what its guest does; waits while the QEMU stands still. */
  command(qemu: SimQemu, run: () => void): void {
    if (!qemu.alive) return
    if (qemu.still || this.paused) qemu.inbox.push(run)
    else run()
  }

  #answer(qemu: SimQemu): void {
    for (const run of qemu.inbox.splice(0)) this.#timeline.after(0, () => this.command(qemu, run))
  }

  setState(qemu: SimQemu, state: RunState): void {
    if (!qemu.alive || qemu.state === state) return
    qemu.state = state
    this.#witness.guest(this, qemu)
    for (const tell of [...this.#changes]) tell(qemu.uid, state)
  }

  powerdown(qemu: SimQemu): void {
    if (qemu.deaf) return
    const ms = powerdownMs * this.#random.between(0.5, 1.5)
    this.#timeline.after(ms, () =>
      this.command(qemu, () => {
        if (qemu.state === 'running') this.setState(qemu, 'shutdown')
      }),
    )
  }

  /** Every QEMU with a uid. */
  of(uid: string): SimQemu[] {
    return [...this.qemus.values()].filter((qemu) => qemu.uid === uid)
  }

  onExit(listener: (exit: ProcessExit) => void): () => void {
    this.#exits.add(listener)
    return () => this.#exits.delete(listener)
  }

  onChange(listener: (uid: string, what: RunState | 'closed') => void): () => void {
    this.#changes.add(listener)
    return () => this.#changes.delete(listener)
  }
}

export { type Ender, eventOf }
