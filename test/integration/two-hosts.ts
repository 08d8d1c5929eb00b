import { join } from 'node:path'
import { test as base } from 'vitest'
import { vmPaths } from '../../src/host/paths.ts'
import type { QemuProcess, Tenure } from '../../src/host/ports.ts'
import { VirtualMachine, type VmStatus } from '../../src/resources/vm.ts'
import type { AgentOptions, TestAgent } from './agent.ts'
import { MachineLab, type Spec } from './machine.ts'

export type Name = 'host-a' | 'host-b'
const names: readonly Name[] = ['host-a', 'host-b']

/** Two hosts of one store, each with its run directory and its lease. */
export class TwoHosts extends MachineLab {
  readonly tenures: Record<Name, Tenure> = {
    'host-a': { state: 'held', epoch: 3, leftMs: 5_000 },
    'host-b': { state: 'held', epoch: 40, leftMs: 5_000 },
  }
  protected readonly journalDir = this.runDir('host-a')

  constructor() {
    super()
    this.makeRunDirs(...names.map((name) => this.runDir(name)))
  }

  runDir(name: Name): string {
    return join(this.root, name)
  }

  /** The machine's run directory on a host. */
  folder(name: Name) {
    return vmPaths(this.runDir(name), this.uid)
  }

  agent(name: Name, options: Partial<AgentOptions> = {}): TestAgent {
    const tenure = () => this.tenures[name]
    return this.newAgent({ hostName: name, runDir: this.runDir(name), tenure, ...options })
  }

  /** Creates the machine on a host; on none where none is given. */
  async create(on?: Name, spec: Spec = {}, uid: string = this.uid): Promise<void> {
    await this.objects.create(VirtualMachine, this.manifest(spec, uid), { restoreUid: true })
    if (on) await this.place(on)
  }

  /** Does what placement does. */
  place(on: Name): Promise<void> {
    const { [on]: tenure } = this.tenures
    const placementEpoch = tenure.state === 'held' ? tenure.epoch : 0
    return this.setStatus((status) => ({ ...status, hostName: on, placementEpoch }))
  }

  async untilStatus(what: string, holds: (status: VmStatus) => boolean): Promise<VmStatus> {
    return this.untilTrue(what, async () => {
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

  /** The live QEMUs of the machine, or those whose run directory is that of a host. */
  override qemus(on?: Name): readonly QemuProcess[] {
    const all = super.qemus()
    return on ? all.filter(({ runDir }) => runDir === this.runDir(on)) : all
  }

  untilGone(on: Name): Promise<unknown> {
    return this.untilTrue(`no QEMU on ${on}`, () => this.qemus(on).length === 0 || undefined)
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
