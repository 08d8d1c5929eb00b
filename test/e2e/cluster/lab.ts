import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { vi } from 'vitest'
import type { NamespaceHost } from '../../../src/drill/cluster/host.ts'
import {
  ClusterLab,
  deadlineMs,
  type ClusterOptions as LabOptions,
  openLab,
} from '../../../src/drill/cluster/lab.ts'
import type { Network } from '../../../src/drill/cluster/network.ts'
import { messageOf } from '../../../src/lib/errors.ts'
import { program, uidOf } from '../lab.ts'
import { type Beat, brokenBeats, diskBeats, toldBeats } from './beats.ts'

export { deadlineMs }
export type Host = NamespaceHost
vi.setConfig({ testTimeout: 3 * deadlineMs, hookTimeout: 3 * deadlineMs })

export type ClusterOptions = Omit<LabOptions, 'program' | 'folder' | 'signal'>

/** Two QEMUs of one machine that were seen alive at one moment. */
interface Twins {
  readonly uid: string
  readonly at: number
  readonly pids: readonly string[]
}

/** The cluster of the drill, with a witness, and guests whose disks are judged. */
export class Cluster extends ClusterLab {
  readonly #witness: ChildProcess
  readonly #expected = new Map<string, string>()
  readonly #told = new Map<string, Map<string, Beat>>()

  constructor(network: Network, { flags = [], ...options }: ClusterOptions) {
    super(network, { ...options, program, flags: ['--accelerator', 'tcg', ...flags] })
    this.#witness = this.#startWitness()
  }

  /** A cluster whose servers are ready. */
  static start(options: ClusterOptions = {}): Promise<Cluster> {
    return openLab((network) => new Cluster(network, options), options)
  }

  /**
   * All that a guest told to be on its disk, as far as it was asked for while its consoles were there: a host removes
   * that of a machine which has gone to another.
   */
  told(uid: string): Beat[] {
    const known = this.#told.get(uid) ?? new Map<string, Beat>()
    for (const beat of toldBeats(this.console(uid))) known.set(`${beat.boot} ${beat.beat}`, beat)
    this.#told.set(uid, known)
    return [...known.values()]
  }

  /** The boot of which a guest told last, from 1. */
  boots(uid: string): number {
    return Math.max(0, ...this.told(uid).map(({ boot }) => boot))
  }

  /** Waits until a guest that beats has told `more` beats than before. */
  async beats(uid: string, more = 1): Promise<void> {
    const before = this.told(uid).length
    await this.until('the guest beats', () => this.told(uid).length >= before + more)
  }

  /**
   * Looks at the disk of a machine that is down: one guest after the other wrote it, and all that they told is there.
   * @throws Error that says what is not so
   */
  async checkDisk(uid: string): Promise<void> {
    if (this.qemus(uid).length > 0) throw new Error('the disk is in use')
    const { beats } = await diskBeats(join(this.pool, uid, 'data.raw'))
    const broken = brokenBeats(beats, this.told(uid))
    if (broken !== undefined) throw new Error(`disk of ${uid}: ${broken}`)
  }

  /** Halts a machine that beats and judges its disk. */
  async checkHalted(name: string): Promise<void> {
    await this.patch(name, { spec: { runStrategy: 'Halted' } })
    const vm = await this.sees(name, 'is Stopped', ({ status }) => status?.phase === 'Stopped')
    await this.checkDisk(uidOf(vm))
  }

  /** Ends cuts, switches on what is off and removes every machine, so that other scenarios find the lab as it began. */
  async clear(): Promise<void> {
    for (const host of this.hosts) {
      await this.network.heal(host.name)
      if (!host.isOn) await host.boot()
      if (host.processes('server').length === 0) await host.serve()
    }
    await this.ready(...this.hosts)
    for (const { name } of this.hosts) await this.patchHost(name, { spec: { unschedulable: false } })
    for (const { metadata } of await this.vms()) await this.remove(metadata.name)
    await this.until('every machine is gone', async () => (await this.vms()).length === 0)
    await this.until('every QEMU is gone', () => this.qemus().length === 0)
    await this.watched()
  }

  /** From now on two QEMUs of this machine at once are no failure, for the reason given. */
  expectTwins(uid: string, why: string): void {
    this.#expected.set(uid, why)
  }

  #startWitness(): ChildProcess {
    const output = openSync(join(this.dir, 'witness'), 'a')
    const program = [resolve('test/e2e/cluster/witness.ts'), this.dir]
    const argv = ['--pdeathsig', 'KILL', '--', process.execPath, '--disable-warning=ExperimentalWarning']
    const witness = spawn('setpriv', [...argv, ...program], { stdio: ['ignore', output, 'inherit'] })
    closeSync(output)
    return witness
  }

  /** Ends the witness. @returns what it saw and must not have @throws Error where it did not look */
  async #testimony(): Promise<Twins[]> {
    const gone = once(this.#witness, 'exit')
    if (!this.#witness.kill('SIGTERM')) throw new Error('the witness has ended before the lab')
    await gone
    const lines = readFileSync(join(this.dir, 'witness'), 'utf8').trim().split('\n')
    const said = lines.map((line) => JSON.parse(line) as Twins & { looks?: number })
    if (!said.at(-1)?.looks) throw new Error('the witness has not looked')
    return said.filter(({ pids = [], uid }) => {
      const awake = pids.filter((pid) => !pid.endsWith('T'))
      return awake.length > 1 && !this.#expected.has(uid)
    })
  }

  /** Ends and removes everything. @throws Error where a machine ever had two QEMUs */
  override async close(): Promise<void> {
    const seen = await this.#testimony().finally(() => super.close())
    if (seen[0]) throw new Error(`two QEMUs of one machine, ${seen.length} times: ${JSON.stringify(seen[0])}`)
  }

  override failure(what: string, error: unknown): Error {
    const logs = this.hosts.map((host) => `--- ${host.name}\n${host.lastWords(2_500)}`)
    const why = error === undefined ? '' : ` (${messageOf(error)})`
    return new Error(`not seen: ${what}${why}\n${logs.join('\n')}`, { cause: error })
  }
}
