import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import type { Processes, QemuProcess } from './ports.ts'
import { HostProcesses } from './processes.ts'

export interface FenceResult {
  /** Machines that may still run; 0 is proof that none does. */
  readonly left: number
  /** Machines that this call found, if any, whatever came of them. */
  readonly found?: number
  /** What was in the way of that proof. */
  readonly why?: string
}

export interface FenceOptions {
  readonly processes: Pick<Processes, 'scan' | 'inspect' | 'signal' | 'launchRecord' | 'runDir'>
  readonly clock: Clock
  readonly log: Log
}

/** How long one call looks for what it killed to be gone, ms; the next one goes on. */
const passMs = 1_000
const lookEveryMs = 20

/** So many machines are named; of more it is said how many. */
const mostNamed = 3

/** What keeps a process from ending by SIGKILL, by its state: a zombie that is listed has threads that live. */
const hindrances: Readonly<Record<string, string>> = {
  D: ', in uninterruptible sleep, as of a disk that hangs: no signal ends it',
  Z: ', of which threads are in uninterruptible sleep, as of a disk that hangs: no signal ends them',
}

/** Machines that live after SIGKILL, by name and pid. */
function livingWords(machines: readonly QemuProcess[]): string {
  const all = [...machines].sort((a, b) => a.pid - b.pid)
  const named = all
    .slice(0, mostNamed)
    .map(({ name, pid, state }) => `${name} (pid ${pid}${hindrances[state] ?? ''})`)
  const more = all.length > mostNamed ? ` and ${all.length - mostNamed} more` : ''
  return `not gone after SIGKILL: ${named.join(', ')}${more}`
}

/** Stops the machines that would be started elsewhere. Needs the kernel alone: no store, no QMP. */
export class GuardFence {
  readonly #options: FenceOptions

  constructor(options: FenceOptions) {
    this.#options = options
  }

  /** Over the processes of this host that carry our mark and name this run directory. */
  static of(options: {
    readonly runDir: string
    readonly host: string
    readonly clock: Clock
    readonly log: Log
  }) {
    const { runDir, host: hostName, clock, log } = options
    // It never starts a QEMU, and leaves its cgroup to who did.
    const cgroups = { enter: async () => 'entered' as const, remove: async () => {} }
    const processes = new HostProcesses({ runDir, hostName, accelerator: 'tcg', clock, log, cgroups })
    return new GuardFence({ processes, clock, log })
  }

  /**
   * SIGKILLs every failover-enabled machine and looks until they are gone, for about a second; to be called again until
   * nothing is left. Never rejects.
   */
  async stop(): Promise<FenceResult> {
    const { clock, processes } = this.#options
    const end = clock.elapsed() + passMs
    try {
      let { found, incomplete } = await this.#find()
      const met = found.length > 0 ? { found: found.length } : {}
      for (const machine of found) this.#kill(machine)
      let living = found
      while (living.length > 0 && clock.elapsed() < end) {
        await sleep(clock, lookEveryMs)
        living = living.filter((machine) => processes.inspect(machine) !== 'gone')
      }
      // What was being started meanwhile was in no list yet.
      if (found.length > 0 && living.length === 0) ({ found, incomplete } = await this.#find())
      if (found.length > 0) return { ...met, left: found.length, why: livingWords(found) }
      return incomplete === undefined ? { ...met, left: 0 } : { ...met, left: 1, why: incomplete }
    } catch (error) {
      return { left: 1, why: messageOf(error) }
    }
  }

  /** How many failover-enabled machines may run. Never rejects. */
  async running(): Promise<number> {
    try {
      const { found, incomplete } = await this.#find()
      return incomplete === undefined ? found.length : Math.max(1, found.length)
    } catch {
      return 1
    }
  }

  async #find(): Promise<{
    readonly found: readonly QemuProcess[]
    readonly incomplete: string | undefined
  }> {
    const { processes } = this.#options
    const scan = await processes.scan()
    const ours = scan.processes.filter(
      ({ runDir, launchId }) => runDir === processes.runDir && launchId !== undefined,
    )
    const failover = await Promise.all(ours.map((machine) => this.#isFailover(machine)))
    return { found: ours.filter((_, i) => failover[i]), incomplete: scan.incomplete }
  }

  /**
   * Whether the machine would be started elsewhere. One whose record can't be read, or is that of another launch, may be
   * one of those: two of it would destroy its disk, while one that is stopped needlessly is started again.
   */
  async #isFailover({ uid, launchId, pid }: QemuProcess): Promise<boolean> {
    try {
      const record = await this.#options.processes.launchRecord(uid)
      if (record?.launchId === launchId) return record?.manifest.spec.recovery?.onHostLoss === 'Failover'
      this.#options.log.warn('a machine without its launch record counts as one that fails over', {
        uid,
        pid,
      })
    } catch (error) {
      const message = messageOf(error)
      this.#options.log.warn('a machine of which little is known counts as one that fails over', {
        ...{ uid, pid, message },
      })
    }
    return true
  }

  #kill(machine: QemuProcess): void {
    const { processes, log } = this.#options
    const { uid, pid, name } = machine
    try {
      const outcome = processes.signal(machine, uid, 'SIGKILL')
      log.warn('machine stopped, as this host is cut off', { uid, pid, name, outcome })
    } catch (error) {
      log.error('machine not stopped', { uid, pid, name, message: messageOf(error) })
    }
  }
}
