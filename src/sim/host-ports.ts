import type {
  DiskState,
  Disks,
  LaunchRecord,
  LaunchRequest,
  MachineAnswer,
  MachineChange,
  Machines,
  ProcessExit,
  Processes,
  ProcessIdentity,
  Scan,
} from '../host/ports.ts'
import { specHash } from '../host/spec-hash.ts'
import { rfc3339 } from '../lib/clock.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { StoragePool } from '../resources/kinds.ts'
import { nbdUrl } from '../resources/nbd.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import type { SimProcess, Timeline } from './clock.ts'
import type { Ender, SimHost } from './host.ts'
import { eventOf, type SimQemu } from './qemu.ts'

const recordMs = 1
const forkMs = 4
const qmpMs = 0.3
const queryTimeoutMs = 3_000
const commandTimeoutMs = 10_000
const prepareMs = 20

/** What one process of a host does to its processes; `who` is noted as the ender of a QEMU it kills. */
export class SimProcesses implements Processes {
  readonly #host: SimHost
  readonly #process: SimProcess
  readonly #timeline: Timeline
  readonly #who: Extract<Ender, 'agent' | 'guard'>
  readonly bootId: string
  readonly runDir: string

  constructor(host: SimHost, process: SimProcess, timeline: Timeline, who: 'agent' | 'guard') {
    this.#host = host
    this.#process = process
    this.#timeline = timeline
    this.#who = who
    this.bootId = host.bootId
    this.runDir = host.runDir
  }

  #later<T>(ms: number, work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#timeline.after(ms, () =>
        this.#process.deliver(() => {
          try {
            resolve(work())
          } catch (error) {
            reject(error)
          }
        }),
      )
    })
  }

  async scan(): Promise<Scan> {
    const { blind, qemus, runDir } = this.#host
    if (blind !== undefined) return { processes: [], incomplete: blind }
    const processes = [...qemus.values()].map((qemu) => ({
      ...{ pid: qemu.pid, startTime: qemu.startTime, bootId: qemu.bootId, uid: qemu.uid, name: qemu.name },
      ...(!qemu.foreign && { launchId: qemu.record.launchId, epoch: qemu.record.epoch, runDir }),
      state: qemu.stuck ? 'D' : qemu.stopped ? 'T' : 'S',
    }))
    return { processes }
  }

  inspect({ pid, startTime, bootId }: ProcessIdentity): 'alive' | 'stopped' | 'gone' | 'unknown' {
    if (bootId !== this.#host.bootId) return 'gone'
    if (this.#host.blind !== undefined) return 'unknown'
    const qemu = this.#host.qemus.get(pid)
    if (qemu?.startTime !== startTime) return 'gone'
    return qemu.stopped ? 'stopped' : 'alive'
  }

  async launch(request: LaunchRequest): ReturnType<Processes['launch']> {
    const { vm, launchId, epoch } = request
    const uid = vm.metadata.uid ?? ''
    const hash = specHash(vm.spec)
    const record: LaunchRecord = {
      ...{ version: 1, launchId, epoch, hostName: this.#host.name, bootId: this.#host.bootId },
      ...{ at: rfc3339(this.#process.clock.now()), accelerator: 'tcg', specHash: hash, argv: [] },
      manifest: { apiVersion: vm.apiVersion, kind: vm.kind, metadata: vm.metadata, spec: vm.spec },
    }
    await this.#later(recordMs, () => {
      this.#refuseIfAlive(uid)
      this.#host.records.set(uid, record)
    })
    const { pid, startTime, bootId } = await this.#later(forkMs, () => {
      this.#refuseIfAlive(uid)
      request.mayStart?.()
      return this.#host.fork(record)
    })
    return { pid, startTime, bootId, accelerator: 'tcg', specHash: hash }
  }

  #refuseIfAlive(uid: string): void {
    const [found] = this.#host.of(uid)
    if (found) throw new PlasmaError('AlreadyRunning', `process ${found.pid} is a QEMU of ${uid}`)
    if (this.#host.blind !== undefined)
      throw new PlasmaError('AlreadyRunning', `a QEMU of ${uid} may live: ${this.#host.blind}`)
  }

  signal(
    identity: ProcessIdentity,
    uid: string,
    signal: 'SIGTERM' | 'SIGKILL' | 'SIGCONT',
  ): 'sent' | 'gone' | 'not-it' {
    const state = this.inspect(identity)
    if (state === 'gone') return 'gone'
    const qemu = this.#host.qemus.get(identity.pid)
    if (state === 'unknown' || qemu?.uid !== uid || qemu.foreign) return 'not-it'
    if (signal === 'SIGCONT') this.#host.freeze(qemu, false)
    else this.#host.end(qemu, this.#who)
    return 'sent'
  }

  async launchRecord(uid: string): Promise<LaunchRecord | undefined> {
    return this.#host.records.get(uid)
  }

  async noteSpec(
    uid: string,
    launchId: string,
    { spec, pending }: Parameters<Processes['noteSpec']>[2],
  ): Promise<LaunchRecord | undefined> {
    const found = this.#host.records.get(uid)
    if (found?.launchId !== launchId) return undefined
    const { pending: _before, ...before } = found
    const left = pending.adding.length + pending.leaving.length > 0 ? { pending } : {}
    const record = { ...before, specHash: specHash(spec), manifest: { ...before.manifest, spec }, ...left }
    this.#host.records.set(uid, record)
    return record
  }

  async cleanup(uid: string): Promise<void> {
    const [found] = this.#host.of(uid)
    if (found) throw new PlasmaError('StillRunning', `process ${found.pid} is a QEMU of ${uid}`)
    this.#host.records.delete(uid)
  }

  async log(): Promise<string> {
    return ''
  }

  onExit(listener: (exit: ProcessExit) => void): () => void {
    return this.#host.onExit((exit) =>
      this.#timeline.after(0, () => this.#process.deliver(() => listener(exit))),
    )
  }
}

/** The monitors of a host's QEMUs, as its agent has them. */
export class SimMachines implements Machines {
  readonly #host: SimHost
  readonly #process: SimProcess
  readonly #timeline: Timeline
  readonly #connected = new Set<string>()

  constructor(host: SimHost, process: SimProcess, timeline: Timeline) {
    this.#host = host
    this.#process = process
    this.#timeline = timeline
  }

  async status(uid: string): Promise<MachineAnswer> {
    try {
      return await this.#ask(uid, queryTimeoutMs, (qemu) => {
        this.#connected.add(uid)
        return { state: 'answered', status: qemu.state, running: qemu.state === 'running' }
      })
    } catch (error) {
      const timeout = error instanceof PlasmaError && error.code === 'Timeout'
      return { state: 'unreachable', why: timeout ? 'timeout' : 'no-socket', message: messageOf(error) }
    }
  }

  execute = (async (uid: string, command: string) => {
    await this.#ask(uid, commandTimeoutMs, (qemu) => this.#obey(qemu, command))
    return command === 'query-block' ? [] : {}
  }) as Machines['execute']

  #obey(qemu: SimQemu, command: string): void {
    const held = qemu.state === 'prelaunch' || qemu.state === 'paused' || qemu.state === 'io-error'
    if (command === 'cont' && held) this.#host.setState(qemu, 'running')
    if (command === 'stop' && qemu.state === 'running') this.#host.setState(qemu, 'paused')
    if (command === 'system_powerdown' && qemu.state === 'running') this.#host.powerdown(qemu)
    if (command === 'quit') this.#host.end(qemu, 'quit')
  }

  /** A command goes out at once, is obeyed even if its sender dies, and its answer comes back a little later. */
  #ask<T>(uid: string, timeoutMs: number, obey: (qemu: SimQemu) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const back = (ms: number, end: () => void) => this.#timeline.after(ms, () => this.#process.deliver(end))
      const [qemu] = this.#host.of(uid)
      if (!qemu) return void back(qmpMs, () => reject(new PlasmaError('no-socket', 'no QEMU listens')))
      const cancel = this.#process.clock.after(timeoutMs, () =>
        reject(new PlasmaError('Timeout', `no answer within ${timeoutMs} ms`)),
      )
      this.#timeline.after(qmpMs, () => {
        this.#host.command(qemu, () => {
          if (qemu.mute) return
          const answer = obey(qemu)
          back(qmpMs, () => {
            cancel()
            resolve(answer)
          })
        })
        if (qemu.alive) return
        back(qmpMs, () => {
          cancel()
          reject(new PlasmaError('closed', 'QEMU closed its socket'))
        })
      })
    })
  }

  onChange(listener: (change: MachineChange) => void): () => void {
    return this.#host.onChange((uid, what) => {
      if (!this.#connected.has(uid)) return
      if (what === 'closed') this.#connected.delete(uid)
      const change: MachineChange =
        what === 'closed' ? { uid, type: 'closed' } : { uid, type: 'event', event: eventOf(what) }
      this.#timeline.after(qmpMs, () => this.#process.deliver(() => listener(change)))
    })
  }

  forget(uid: string): void {
    this.#connected.delete(uid)
  }

  async close(): Promise<void> {
    this.#connected.clear()
  }
}

/** Files of disks that every host sees, and of which the rules know who made them. */
export interface SharedDisks {
  readonly files: Set<string>
  made(host: SimHost, uid: string, name: string, shared: boolean): void
  removed(uid: string): void
}

/** The disks of a host's machines: a file is there or not; where a pool is shared every host sees it. */
export class SimDisks implements Disks {
  readonly #host: SimHost
  readonly #process: SimProcess
  readonly #timeline: Timeline
  readonly #shared: SharedDisks
  readonly #pools: () => readonly StoragePool[]
  readonly #preparing = new Set<string>()
  readonly #listeners = new Set<(uid: string) => void>()

  constructor(
    host: SimHost,
    process: SimProcess,
    timeline: Timeline,
    shared: SharedDisks,
    pools: () => readonly StoragePool[],
  ) {
    this.#host = host
    this.#process = process
    this.#timeline = timeline
    this.#shared = shared
    this.#pools = pools
  }

  #isShared(pool: string): boolean {
    return this.#pools().some(({ metadata, spec }) => metadata.name === pool && spec.shared)
  }

  #files(pool: string): Set<string> {
    return this.#isShared(pool) ? this.#shared.files : this.#host.disks
  }

  async observe(vm: VirtualMachine): Promise<readonly DiskState[]> {
    const uid = vm.metadata.uid ?? ''
    return vm.spec.disks.map(({ name, pool, path, nbd }) => {
      if (nbd) return { name, state: 'ready', path: nbdUrl(nbd) }
      if (path !== undefined) return { name, state: 'ready', path }
      const file = `${uid}/${name}`
      if (this.#files(pool).has(file)) return { name, state: 'ready', path: `/pools/${pool}/${file}` }
      return { name, state: this.#preparing.has(file) ? 'preparing' : 'absent' }
    })
  }

  prepare(vm: VirtualMachine, only?: readonly string[]): void {
    const uid = vm.metadata.uid ?? ''
    for (const { name, pool, path, nbd } of vm.spec.disks) {
      if (nbd) continue
      const file = `${uid}/${name}`
      const files = this.#files(pool)
      const known = path !== undefined || files.has(file) || this.#preparing.has(file)
      if (known || (only && !only.includes(name))) continue
      this.#preparing.add(file)
      this.#timeline.after(prepareMs, () =>
        this.#process.deliver(() => {
          this.#preparing.delete(file)
          if (files.has(file)) return
          files.add(file)
          this.#shared.made(this.#host, uid, name, this.#isShared(pool))
          for (const tell of this.#listeners) tell(uid)
        }),
      )
    }
  }

  async checkGrowth(): Promise<void> {}

  async remove(vm: VirtualMachine): Promise<void> {
    const uid = vm.metadata.uid ?? ''
    for (const { name, pool } of vm.spec.disks) this.#files(pool).delete(`${uid}/${name}`)
    this.#shared.removed(uid)
  }

  onChange(listener: (uid: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {}
}
