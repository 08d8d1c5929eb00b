import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test as base, expect } from 'vitest'
import { type VmPaths, vmPaths } from '../../src/host/paths.ts'
import type { QemuProcess } from '../../src/host/ports.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { Event } from '../../src/resources/kinds.ts'
import { VirtualMachine, type VmAction, type VmStatus, vmSpec } from '../../src/resources/vm.ts'
import { isReason } from '../../src/store/errors.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { listAndWatch } from '../../src/store/list-watch.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { tellFake } from '../fakes/control.ts'
import { PlainDisks } from '../fakes/plain-disks.ts'
import { type Behaviour, type Control, readJournal, scriptDir, scriptPath } from '../fakes/qemu/script.ts'
import { SkippingClock } from '../fakes/skipping-clock.ts'
import { type AgentOptions, TestAgent } from './agent.ts'
import { Watcher } from './watcher.ts'

export const fakeQemu = resolve('test/fakes/qemu-system-fake')
/** So long that no slow machine gets there without a leap. */
export const graceSeconds = 3_600
/** Of an agent: a pass that waits for an answer is short, and between passes the clock can leap. */
export const answersWithin = { statusTimeoutMs: 300, resyncMs: 2_000 }
const deadlineMs = 40_000
const pollMs = 10
const ref = { namespace: 'default', name: 'web' }

type Spec = Record<string, unknown>
type Seen = VirtualMachine | undefined

/** One host with a store, a machine `default/web` to be, fake QEMUs, and agents that come and go. */
export class Lab {
  readonly root = mkdtempSync(join(tmpdir(), 'lab-'))
  readonly runDir = join(this.root, 'run')
  readonly uid = randomUUID()
  readonly paths: VmPaths = vmPaths(this.runDir, this.uid)
  readonly clock = new SkippingClock()
  readonly disks = new PlainDisks()
  objects = this.#newStore()
  /** Every state of the machine that the store has had, in order. */
  readonly history: VirtualMachine[] = []
  /** Set by scenarios that start a second QEMU themselves. */
  twinsWanted = false
  readonly #agents: TestAgent[] = []
  readonly #children: ChildProcess[] = []
  readonly #watcher = new Watcher(() => new Set([this.uid]))
  #watching = new AbortController()

  constructor() {
    mkdirSync(this.runDir)
    mkdirSync(scriptDir(this.runDir))
    this.#record()
  }

  /** How the fake behaves, a launch each; the last one holds on. */
  script(...behaviours: readonly Behaviour[]): void {
    writeFileSync(scriptPath(this.runDir, this.uid), JSON.stringify(behaviours))
  }

  agent(options: Partial<AgentOptions> = {}): TestAgent {
    const { runDir, objects, clock, disks } = this
    const agent = new TestAgent({ runDir, objects, clock, disks, qemuBinary: fakeQemu, ...options })
    this.#agents.push(agent)
    return agent
  }

  /** A manifest of the machine, with its uid. */
  manifest(spec: Spec = {}): VirtualMachine {
    return {
      ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
      metadata: { ...ref, uid: this.uid },
      spec: vmSpec.parse({ memory: '64Mi', terminationGracePeriodSeconds: graceSeconds, ...spec }),
    }
  }

  async create(spec: Spec = {}): Promise<VirtualMachine> {
    return this.objects.create(VirtualMachine, this.manifest(spec), { restoreUid: true })
  }

  async get(): Promise<Seen> {
    return this.objects.get(VirtualMachine, ref).catch((error: unknown) => {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    })
  }

  /** The status as it is; the machine must be there. */
  async status(): Promise<VmStatus> {
    const status = (await this.get())?.status
    if (!status) throw new Error('the machine has no status')
    return status
  }

  /** Changes the spec, over conflicts. */
  async change(spec: Spec): Promise<void> {
    await this.#write(async (vm) =>
      this.objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, ...spec } }),
    )
  }

  /** Leaves a request, as the API's verbs do. */
  async request(action: VmAction): Promise<void> {
    const request = { action, id: randomUUID(), at: new Date(this.clock.now()).toISOString() }
    await this.setStatus((status) => ({ ...status, request }))
  }

  async setStatus(change: (status: VmStatus) => VmStatus): Promise<void> {
    const none = { restarts: 0, networks: [], disks: [], conditions: [] }
    await this.#write(async (vm) =>
      this.objects.updateStatus(VirtualMachine, { ...vm, status: change(vm.status ?? none) }),
    )
  }

  async delete(): Promise<void> {
    await this.objects.delete(VirtualMachine, ref)
  }

  /** Waits until the machine is as wanted; undefined is a machine that is gone. */
  async until(what: string, wanted: (vm: Seen) => boolean): Promise<Seen> {
    return this.untilTrue(what, async () => {
      const vm = await this.get()
      return wanted(vm) ? { vm } : undefined
    }).then(({ vm }) => vm)
  }

  async untilPhase(phase: string, more: (status: VmStatus) => boolean = () => true): Promise<VmStatus> {
    const fits = (vm: Seen) => vm?.status?.phase === phase && more(vm.status)
    const vm = await this.until(phase, fits)
    return vm?.status as VmStatus
  }

  async untilGone(): Promise<void> {
    await this.until('gone', (vm) => vm === undefined)
  }

  /** Tries until `test` gives something; fails with all that is known. */
  async untilTrue<T>(what: string, test: () => Promise<T | undefined> | T | undefined): Promise<T> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      const found = await test()
      if (found !== undefined && found !== false) return found
      if (Date.now() > deadline) throw new Error(`never: ${what}\n${await this.#story()}`)
      await new Promise((done) => setTimeout(done, pollMs))
    }
  }

  /** Leaps ahead, but never over a deadline of a pass that is under way. */
  async skip(seconds: number): Promise<void> {
    await this.untilTrue('no pass under way', () => this.#agents.every((agent) => agent.idle) || undefined)
    this.clock.skip(seconds * 1_000)
  }

  /** The live QEMUs of the machine. */
  qemus(): readonly QemuProcess[] {
    return this.#watcher.look()
  }

  /** The one live QEMU. */
  qemu(): QemuProcess {
    const found = this.qemus()
    expect(found).toHaveLength(1)
    return found[0] as QemuProcess
  }

  /** Tells the one live QEMU what to do. */
  async tell(command: Control): Promise<void> {
    await tellFake(this.qemu().pid, command)
  }

  guest(act: Extract<Control, { do: 'guest' }>['act']): Promise<void> {
    return this.tell({ do: 'guest', act })
  }

  behave(as: Behaviour): Promise<void> {
    return this.tell({ do: 'behave', as })
  }

  /** How many QEMUs of the machine were ever started. */
  starts(): number {
    return this.#entries().filter((entry) => entry.what === 'start').length
  }

  /** Commands that QEMUs of the machine took, oldest first. */
  commands(): readonly string[] {
    return this.#entries().flatMap((entry) => (entry.what === 'command' ? [entry.name] : []))
  }

  /** Reasons of the Events about the machine that are written, with their types. */
  async events(): Promise<readonly string[]> {
    for (const agent of this.#agents) await agent.recorder.flush()
    const { items } = await this.objects.list(Event, { namespace: 'default' })
    return items.map((event) => `${event.type} ${event.reason}`)
  }

  /** Starts a process of the test's own, which ends with it. */
  spawn(file: string, args: readonly string[]): ChildProcess {
    const child = spawn(file, args, { stdio: 'ignore' })
    this.#children.push(child)
    return child
  }

  /** A store without a trace of the machine. */
  wipeStore(): void {
    this.#watching.abort()
    this.objects = this.#newStore()
    this.#record()
  }

  /** Ends everything, and judges what was seen: at no time two QEMUs. */
  async close(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.stop()))
    this.#watching.abort()
    for (const child of this.#children) child.kill('SIGKILL')
    const left = this.qemus()
    for (const { pid } of left) process.kill(pid, 'SIGKILL')
    this.#watcher.close()
    const seconds = this.#entries().filter((entry) => entry.what === 'second')
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 })
    if (this.twinsWanted) return
    expect(this.#watcher.twins, 'two QEMUs lived at once').toEqual([])
    expect(seconds, 'a QEMU was started beside another').toEqual([])
  }

  #newStore(): KvObjects {
    return new KvObjects(new MemoryKv(), { clock: this.clock, newUid: randomUUID })
  }

  #entries() {
    return readJournal(this.runDir).filter((entry) => entry.uid === this.uid)
  }

  #record(): void {
    this.#watching = new AbortController()
    const { signal } = this.#watching
    const keep = async () => {
      for await (const event of listAndWatch(this.objects, VirtualMachine, {}, signal))
        if (event.type !== 'SYNC') this.history.push(event.object)
    }
    void keep()
  }

  async #write(write: (vm: VirtualMachine) => Promise<unknown>): Promise<void> {
    for (;;) {
      const vm = await this.get()
      if (!vm) throw new Error('the machine is gone')
      try {
        return void (await write(vm))
      } catch (error) {
        if (!isReason(error, 'Conflict')) throw error
      }
    }
  }

  async #story(): Promise<string> {
    const phases = this.history.map(({ status }) => `${status?.phase}/${status?.reason}`)
    const logs = this.#agents.map((agent) => agent.log.slice(-20).join('\n'))
    const now = JSON.stringify((await this.get())?.status, null, 1)
    return [phases.join(' → '), this.commands().join(' '), ...logs, now].join('\n')
  }
}

/** A test with a lab of its own, which is closed and judged afterwards. */
export const test = base.extend<{ lab: Lab }>({
  // biome-ignore lint/correctness/noEmptyPattern: fixtures name what they need in a pattern; this one needs nothing
  lab: async ({}, use) => {
    const lab = new Lab()
    try {
      await use(lab)
    } finally {
      await lab.close()
    }
  },
})
