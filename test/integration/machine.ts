import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect } from 'vitest'
import type { QemuProcess } from '../../src/host/ports.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { Event } from '../../src/resources/kinds.ts'
import { VirtualMachine, type VmAction, type VmStatus, vmSpec } from '../../src/resources/vm.ts'
import { isReason } from '../../src/store/errors.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { PlainDisks } from '../fakes/plain-disks.ts'
import { readJournal, scriptDir } from '../fakes/qemu/script.ts'
import { SkippingClock } from '../fakes/skipping-clock.ts'
import { type AgentOptions, TestAgent } from './agent.ts'
import { Watcher } from './watcher.ts'

const deadlineMs = 60_000
const pollMs = 10
const ref = { namespace: 'default', name: 'web' }
const none: VmStatus = { restarts: 0, networks: [], disks: [], conditions: [] }

export const fakeQemu = resolve('test/fakes/qemu-system-fake')
export type Spec = Record<string, unknown>

/** A store with a machine `default/web` to be, fake QEMUs, and agents that come and go; on one host or several. */
export abstract class MachineLab {
  readonly root = mkdtempSync(join(tmpdir(), 'lab-'))
  readonly uid = randomUUID()
  readonly clock = new SkippingClock()
  readonly disks = new PlainDisks()
  kv = new MemoryKv()
  objects = this.newStore()
  /** Set by scenarios that start a second QEMU themselves. */
  twinsWanted = false
  protected readonly agents: TestAgent[] = []
  readonly #watcher = new Watcher(() => new Set([this.uid]))

  /** The run directory whose fakes write the journal. */
  protected abstract readonly journalDir: string

  protected newStore(): KvObjects {
    this.kv = new MemoryKv()
    return new KvObjects(this.kv, { clock: this.clock, newUid: randomUUID })
  }

  protected makeRunDirs(...dirs: readonly string[]): void {
    for (const dir of dirs) mkdirSync(dir)
    mkdirSync(scriptDir(this.journalDir))
  }

  protected newAgent(options: Partial<AgentOptions> & Pick<AgentOptions, 'runDir'>): TestAgent {
    const { objects, clock, disks } = this
    const agent = new TestAgent({ objects, clock, disks, qemuBinary: fakeQemu, ...options })
    this.agents.push(agent)
    return agent
  }

  /** A manifest of the machine, with its uid. */
  manifest(spec: Spec = {}, uid: string = this.uid): VirtualMachine {
    return {
      ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
      metadata: { ...ref, uid },
      spec: vmSpec.parse({ memory: '64Mi', ...spec }),
    }
  }

  /** The machine; undefined where it is gone. */
  async get(): Promise<VirtualMachine | undefined> {
    return this.objects.get(VirtualMachine, ref).catch((error: unknown) => {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    })
  }

  /** The status as it is, or an empty one; the machine must be there. */
  async status(): Promise<VmStatus> {
    const vm = await this.get()
    if (!vm) throw new Error('the machine is gone')
    return vm.status ?? none
  }

  /** Changes the spec, over conflicts. */
  change(spec: Spec): Promise<void> {
    return this.#write((vm) => this.objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, ...spec } }))
  }

  /** Leaves a request, as the API's verbs do. */
  request(action: VmAction): Promise<void> {
    const request = { action, id: randomUUID(), at: new Date(this.clock.now()).toISOString() }
    return this.setStatus((status) => ({ ...status, request }))
  }

  setStatus(change: (status: VmStatus) => VmStatus): Promise<void> {
    return this.#write((vm) =>
      this.objects.updateStatus(VirtualMachine, { ...vm, status: change(vm.status ?? none) }),
    )
  }

  async delete(): Promise<void> {
    await this.objects.delete(VirtualMachine, ref)
  }

  /** Tries until `test` gives something; fails with all that is known. */
  async untilTrue<T>(what: string, test: () => Promise<T | undefined> | T | undefined): Promise<T> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      const found = await test()
      if (found !== undefined && found !== false) return found
      if (Date.now() > deadline) throw new Error(`never: ${what}\n${await this.story()}`)
      await new Promise((done) => setTimeout(done, pollMs))
    }
  }

  /** The live QEMUs of the machine. */
  qemus(): readonly QemuProcess[] {
    return this.#watcher.look()
  }

  /** What the fakes of the machine wrote down. */
  protected journal() {
    return readJournal(this.journalDir).filter(({ uid }) => uid === this.uid)
  }

  /** How many QEMUs of the machine were ever started. */
  starts(): number {
    return this.journal().filter(({ what }) => what === 'start').length
  }

  /** Types, reasons and messages of the Events about the machine that are written. */
  async events(): Promise<readonly string[]> {
    for (const agent of this.agents) await agent.recorder.flush()
    const { items } = await this.objects.list(Event, { namespace: ref.namespace })
    return items.map(({ type, reason, message }) => `${type} ${reason} ${message}`)
  }

  /** Ends everything, and judges what was seen: at no time two QEMUs. */
  async close(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.stop()))
    for (const { pid } of this.qemus()) process.kill(pid, 'SIGKILL')
    this.#watcher.close()
    const seconds = this.journal().filter(({ what }) => what === 'second')
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 })
    if (this.twinsWanted) return
    expect(this.#watcher.twins, 'two QEMUs lived at once').toEqual([])
    expect(seconds, 'a QEMU was started beside another').toEqual([])
  }

  /** All that is known, for a test that fails. */
  protected async story(): Promise<string> {
    const vm = await this.get().catch((error: unknown) => ({ status: String(error) }))
    const logs = this.agents.map((agent) => agent.log.slice(-20).join('\n'))
    return [JSON.stringify(vm?.status, null, 1), ...logs, JSON.stringify(this.qemus())].join('\n')
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
}
