import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { type VmPaths, vmPaths } from '../../src/host/paths.ts'
import type { QemuProcess } from '../../src/host/ports.ts'
import { VirtualMachine, type VmStatus } from '../../src/resources/vm.ts'
import { listAndWatch } from '../../src/store/list-watch.ts'
import { tellFake } from '../fakes/control.ts'
import { type Behaviour, type Control, scriptPath } from '../fakes/qemu/script.ts'
import type { AgentOptions, TestAgent } from './agent.ts'
import { fakeQemu, MachineLab, type Spec } from './machine.ts'

export { fakeQemu }
/** So long that no slow machine gets there without a leap. */
export const graceSeconds = 3_600
/** Of an agent: a pass that waits for an answer is short, and between passes the clock can leap. */
export const answersWithin = { statusTimeoutMs: 300, resyncMs: 2_000 }

type Seen = VirtualMachine | undefined

/** One host. */
export class Lab extends MachineLab {
  readonly runDir = join(this.root, 'run')
  protected readonly journalDir = this.runDir
  readonly paths: VmPaths = vmPaths(this.runDir, this.uid)
  /** Every state of the machine that the store has had, in order. */
  readonly history: VirtualMachine[] = []
  readonly #children: ChildProcess[] = []
  #watching = new AbortController()

  constructor() {
    super()
    this.makeRunDirs(this.runDir)
    this.#record()
  }

  /** How the fake behaves, a launch each; the last one holds on. */
  script(...behaviours: readonly Behaviour[]): void {
    writeFileSync(scriptPath(this.runDir, this.uid), JSON.stringify(behaviours))
  }

  agent(options: Partial<AgentOptions> = {}): TestAgent {
    return this.newAgent({ runDir: this.runDir, ...options })
  }

  override manifest(spec: Spec = {}): VirtualMachine {
    return super.manifest({ terminationGracePeriodSeconds: graceSeconds, ...spec })
  }

  async create(spec: Spec = {}): Promise<VirtualMachine> {
    return this.objects.create(VirtualMachine, this.manifest(spec), { restoreUid: true })
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

  /** Leaps ahead, but never over a deadline of a pass that is under way. */
  async skip(seconds: number): Promise<void> {
    await this.untilTrue('no pass under way', () => this.agents.every((agent) => agent.idle) || undefined)
    this.clock.skip(seconds * 1_000)
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

  /** Commands that QEMUs of the machine took, oldest first. */
  commands(): readonly string[] {
    return this.journal().flatMap((entry) => (entry.what === 'command' ? [entry.name] : []))
  }

  /** Types and reasons of the Events about the machine that are written. */
  override async events(): Promise<readonly string[]> {
    return (await super.events()).map((event) => event.split(' ', 2).join(' '))
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
    this.objects = this.newStore()
    this.#record()
  }

  override async close(): Promise<void> {
    this.#watching.abort()
    for (const child of this.#children) child.kill('SIGKILL')
    await super.close()
  }

  protected override async story(): Promise<string> {
    const phases = this.history.map(({ status }) => `${status?.phase}/${status?.reason}`)
    return [phases.join(' → '), this.commands().join(' '), await super.story()].join('\n')
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
