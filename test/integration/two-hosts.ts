import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { vmPaths } from '../../src/host/paths.ts'
import type { QemuProcess, Tenure } from '../../src/host/ports.ts'
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
import { fakeQemu } from './lab.ts'
import { Watcher } from './watcher.ts'

export type Name = 'host-a' | 'host-b'
const names: readonly Name[] = ['host-a', 'host-b']
const deadlineMs = 60_000
const pollMs = 10
const ref = { namespace: 'default', name: 'web' }
const none: VmStatus = { restarts: 0, networks: [], disks: [], conditions: [] }

/** Two hosts of one store, each with its run directory and its lease; a machine `default/web`; fake QEMUs. */
export class TwoHosts {
  readonly root = mkdtempSync(join(tmpdir(), 'two-'))
  readonly uid = randomUUID()
  readonly clock = new SkippingClock()
  readonly objects = new KvObjects(new MemoryKv(), { clock: this.clock, newUid: randomUUID })
  readonly tenures: Record<Name, Tenure> = {
    'host-a': { state: 'held', epoch: 3, leftMs: 5_000 },
    'host-b': { state: 'held', epoch: 40, leftMs: 5_000 },
  }
  readonly disks = new PlainDisks()
  readonly #agents: TestAgent[] = []
  readonly #watcher = new Watcher(() => new Set([this.uid]))

  constructor() {
    for (const name of names) mkdirSync(this.runDir(name))
    mkdirSync(scriptDir(this.runDir('host-a')))
  }

  runDir(name: Name): string {
    return join(this.root, name)
  }

  /** The machine's run directory on a host. */
  folder(name: Name) {
    return vmPaths(this.runDir(name), this.uid)
  }

  agent(name: Name, options: Partial<AgentOptions> = {}): TestAgent {
    const { clock, disks, objects } = this
    const agent = new TestAgent({
      ...{ hostName: name, runDir: this.runDir(name), qemuBinary: fakeQemu, clock, disks, objects },
      tenure: () => this.tenures[name],
      ...options,
    })
    this.#agents.push(agent)
    return agent
  }

  /** Creates the machine on a host; on none where none is given. */
  async create(on?: Name, spec: Record<string, unknown> = {}, uid = this.uid): Promise<void> {
    const vm: VirtualMachine = {
      ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
      metadata: { ...ref, uid },
      spec: vmSpec.parse({ memory: '64Mi', ...spec }),
    }
    await this.objects.create(VirtualMachine, vm, { restoreUid: true })
    if (on) await this.place(on)
  }

  /** Does what placement does. */
  place(on: Name): Promise<void> {
    const { [on]: tenure } = this.tenures
    const placementEpoch = tenure.state === 'held' ? tenure.epoch : 0
    return this.setStatus((status) => ({ ...status, hostName: on, placementEpoch }))
  }

  async get(): Promise<VirtualMachine> {
    return this.objects.get(VirtualMachine, ref)
  }

  async status(): Promise<VmStatus> {
    return (await this.get()).status ?? none
  }

  request(action: VmAction): Promise<void> {
    const request = { action, id: randomUUID(), at: new Date(this.clock.now()).toISOString() }
    return this.setStatus((status) => ({ ...status, request }))
  }

  setStatus(change: (status: VmStatus) => VmStatus): Promise<void> {
    return this.#write((vm) =>
      this.objects.updateStatus(VirtualMachine, { ...vm, status: change(vm.status ?? none) }),
    )
  }

  change(spec: Record<string, unknown>): Promise<void> {
    return this.#write((vm) =>
      this.objects.update(VirtualMachine, { ...vm, spec: vmSpec.parse({ ...vm.spec, ...spec }) }),
    )
  }

  async untilStatus(what: string, holds: (status: VmStatus) => boolean): Promise<VmStatus> {
    return this.until(what, async () => {
      const status = await this.status()
      return holds(status) ? status : undefined
    })
  }

  /** Waits until the status tells of the one QEMU that there is, on this host. */
  untilRunning(on: Name): Promise<VmStatus> {
    const isSo = ({ phase, hostName, process: told }: VmStatus) =>
      phase === 'Running' && hostName === on && this.qemus(on)[0]?.pid === told?.pid
    return this.untilStatus(`running on ${on}`, (status) => isSo(status))
  }

  async until<T>(what: string, test: () => Promise<T | undefined> | T | undefined): Promise<T> {
    const deadline = Date.now() + deadlineMs
    for (;;) {
      const found = await test()
      if (found !== undefined && found !== false) return found
      if (Date.now() > deadline) throw new Error(`never: ${what}\n${await this.#story()}`)
      await new Promise((done) => setTimeout(done, pollMs))
    }
  }

  /** The live QEMUs of the machine, by the run directory that each belongs to. */
  qemus(on?: Name): readonly QemuProcess[] {
    const all = this.#watcher.look()
    return on ? all.filter(({ runDir }) => runDir === this.runDir(on)) : all
  }

  untilGone(on: Name): Promise<unknown> {
    return this.until(`no QEMU on ${on}`, () => this.qemus(on).length === 0 || undefined)
  }

  /** How many QEMUs of the machine were ever started. */
  starts(): number {
    return readJournal(this.runDir('host-a')).filter(({ uid, what }) => uid === this.uid && what === 'start')
      .length
  }

  async events(): Promise<readonly string[]> {
    for (const agent of this.#agents) await agent.recorder.flush()
    const { items } = await this.objects.list(Event, { namespace: 'default' })
    return items.map(({ type, reason, message }) => `${type} ${reason} ${message}`)
  }

  /** Ends everything, and judges what was seen: at no time two QEMUs. */
  async close(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.stop()))
    for (const { pid } of this.qemus()) process.kill(pid, 'SIGKILL')
    this.#watcher.close()
    const seconds = readJournal(this.runDir('host-a')).filter(({ what }) => what === 'second')
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 })
    expect(this.#watcher.twins, 'two QEMUs lived at once').toEqual([])
    expect(seconds, 'a QEMU was started beside another').toEqual([])
  }

  async #write(write: (vm: VirtualMachine) => Promise<unknown>): Promise<void> {
    for (;;) {
      try {
        return void (await write(await this.get()))
      } catch (error) {
        if (!isReason(error, 'Conflict')) throw error
      }
    }
  }

  async #story(): Promise<string> {
    const status = await this.status().catch((error: unknown) => error)
    const logs = this.#agents.map((agent) => agent.log.slice(-20).join('\n'))
    return [JSON.stringify(status, null, 1), ...logs, JSON.stringify(this.qemus())].join('\n')
  }
}

/** A test with two hosts of its own, which are closed and judged afterwards. */
export const test = base.extend<{ hosts: TwoHosts }>({
  // biome-ignore lint/correctness/noEmptyPattern: fixtures name what they need in a pattern; this one needs nothing
  hosts: async ({}, use) => {
    const hosts = new TwoHosts()
    try {
      await use(hosts)
    } finally {
      await hosts.close()
    }
  },
})
