import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect } from 'vitest'
import { type Config, loadConfig } from '../../src/config.ts'
import { hostIdAnnotation } from '../../src/controllers/host/register.ts'
import { type GuardRecord, processLives, readGuardRecord } from '../../src/host/guard-file.ts'
import { hostIdOf } from '../../src/host/host-id.ts'
import type { ProcessIdentity, QemuProcess } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { hostSpec } from '../../src/resources/host.ts'
import { hostLeaseName, leaseAnnotations, systemNamespace } from '../../src/resources/host-lease.ts'
import { Host, Lease } from '../../src/resources/kinds.ts'
import { vmSpec } from '../../src/resources/vm.ts'
import { type EtcdKv, openEtcd } from '../../src/store/etcd.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { scriptDir } from '../fakes/qemu/script.ts'

const fakeQemu = resolve('test/fakes/qemu-system-fake')
/** What runs `plasmavmc` here. */
export const program = [process.execPath, '--disable-warning=ExperimentalWarning', resolve('src/main.ts')]
/** Generous: it only ends a test that would never end. */
export const deadlineMs = 60_000
/** Terms for tests that do not count on much time between deadlines, seconds. */
export const quick = { leaseDuration: '5', leaseRenew: '0.6', leaseDeadline: '2' }
/** For those that are about no deadline, however slow the machine is. */
export const patient = { leaseDuration: '60', leaseRenew: '1', leaseDeadline: '50' }
const bootId = new Procfs().bootId()

/** Tries until `test` gives true. */
export async function until(what: string, test: () => boolean | Promise<boolean>, ms = deadlineMs) {
  await expect.poll(test, { timeout: ms, interval: 20, message: `never: ${what}` }).toBe(true)
}

/** A host of a cluster without its server: its folders, its Host in the store, its guard, and fake QEMUs. */
export class GuardHost {
  readonly name: string
  readonly config: Config
  readonly #lab: GuardLab
  readonly #processes: HostProcesses
  readonly #children = new Set<ChildProcess>()

  constructor(lab: GuardLab, name: string, flags: Readonly<Record<string, string>>) {
    this.#lab = lab
    this.name = name
    const folder = join(lab.root, name)
    const [dataDir, runDir] = [join(folder, 'd'), join(folder, 'r')]
    for (const one of [dataDir, runDir, scriptDir(runDir)]) mkdirSync(one, { recursive: true })
    const store = { store: 'etcd', etcdEndpoints: lab.etcd.endpoints.join(','), etcdPrefix: lab.prefix }
    const given = { ...store, dataDir, runDir, hostName: name, peerListen: '127.0.0.1:0', ...flags }
    this.config = loadConfig(given, {}, { uid: 0 })
    this.#processes = new HostProcesses({
      ...{ runDir, hostName: name, qemuBinary: fakeQemu, accelerator: 'tcg' },
      ...{ clock: systemClock, log: silentLog },
      cgroups: { enter: async () => 'entered', remove: async () => {} },
    })
  }

  /** As its server does, which makes the name its own. */
  async register(): Promise<void> {
    const annotations = { [hostIdAnnotation]: hostIdOf(this.config.dataDir) }
    await this.#lab.objects.create(Host, {
      ...{ apiVersion: apiVersionOf(Host), kind: 'Host', spec: hostSpec.parse({}) },
      metadata: { name: this.name, annotations },
    })
  }

  /** Starts a guard as a child of this test. */
  spawnGuard(flags: readonly string[]): ChildProcess {
    const log = openSync(join(this.config.runDir, 'guard.log'), 'a')
    const child = spawn(program[0]!, [...program.slice(1), 'guard', ...flags], {
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    this.#children.add(child)
    return child
  }

  log(): string {
    return readFileSync(join(this.config.runDir, 'guard.log'), 'utf8')
  }

  get record(): GuardRecord | undefined {
    return readGuardRecord(this.config.runDir, bootId)
  }

  /** A record that a living guard wrote. */
  get guard(): GuardRecord | undefined {
    const { record } = this
    return record && processLives(record) ? record : undefined
  }

  async holds(): Promise<GuardRecord> {
    await until(`${this.name} holds its lease`, () => this.guard?.held === true).catch((error: unknown) => {
      throw new Error(`${error}\n${JSON.stringify(this.record)}\n${this.log().slice(-3_000)}`)
    })
    return this.guard!
  }

  async launch(onHostLoss: 'Failover' | 'Manual'): Promise<ProcessIdentity & { readonly uid: string }> {
    const uid = randomUUID()
    const metadata = { name: `vm-${uid.slice(0, 8)}`, namespace: 'default', uid }
    const spec = vmSpec.parse({ memory: '64Mi', recovery: { onHostLoss } })
    const vm = { apiVersion: 'plasmavmc.io/v1alpha1', kind: 'VirtualMachine', metadata, spec }
    const launch = { vm, launchId: randomUUID(), epoch: 1, disks: new Map() }
    return { uid, ...(await this.#processes.launch(launch)) }
  }

  lives(machine: ProcessIdentity): boolean {
    return this.#processes.inspect(machine) !== 'gone'
  }

  async qemus(): Promise<readonly QemuProcess[]> {
    const { processes } = await this.#processes.scan()
    return processes.filter(({ runDir }) => runDir === this.config.runDir)
  }

  lease(): Promise<Lease> {
    return this.#lab.objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(this.name) })
  }

  async close(): Promise<void> {
    const { guard } = this
    if (guard) process.kill(guard.pid, 'SIGKILL')
    for (const child of this.#children) child.kill('SIGKILL')
    for (const { pid } of await this.qemus()) process.kill(pid, 'SIGKILL')
    await until('its QEMUs are gone', async () => (await this.qemus()).length === 0)
  }
}

/** A real etcd with hosts that have real guards. */
export class GuardLab {
  readonly root = mkdtempSync(join(tmpdir(), 'pvg-'))
  readonly prefix = '/guards'
  readonly etcd: EtcdLab
  readonly kv: EtcdKv
  readonly objects: KvObjects
  readonly hosts: GuardHost[] = []

  private constructor(etcd: EtcdLab, kv: EtcdKv) {
    this.etcd = etcd
    this.kv = kv
    this.objects = new KvObjects(kv, { clock: systemClock, newUid: randomUUID })
  }

  static async start(): Promise<GuardLab> {
    const etcd = await EtcdLab.start()
    const kv = await openEtcd({ endpoints: etcd.endpoints, prefix: '/guards' })
    return new GuardLab(etcd, kv)
  }

  async host(name: string, flags: Readonly<Record<string, string>> = {}): Promise<GuardHost> {
    const host = new GuardHost(this, name, flags)
    this.hosts.push(host)
    await host.register()
    return host
  }

  /** Hosts that have been there, and answer nobody. */
  async addSilent(...names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.objects.create(Host, {
        ...{ apiVersion: apiVersionOf(Host), kind: 'Host', spec: hostSpec.parse({}), metadata: { name } },
      })
      const facts = {
        deadlineMs: 6_000,
        stopMs: 2_500,
        selfFence: 'guard',
        agent: 'alive',
        bootId: 'x',
      } as const
      const annotations = leaseAnnotations({ ...facts, peer: '127.0.0.1:1', members: [name] })
      await this.objects.create(Lease, {
        ...{ apiVersion: apiVersionOf(Lease), kind: 'Lease' },
        metadata: { namespace: systemNamespace, name: hostLeaseName(name), annotations },
        spec: { holderIdentity: name, leaseTransitions: 1 },
      })
    }
  }

  async stopEtcd(): Promise<void> {
    for (const member of this.etcd.members) await member.kill()
  }

  async startEtcd(): Promise<void> {
    for (const member of this.etcd.members) member.start()
    await this.etcd.serving()
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await host.close()
    await this.kv.close()
    await this.etcd.close()
    rmSync(this.root, { recursive: true, force: true, maxRetries: 5 })
  }
}

export async function exited(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const [code] = (await once(child, 'exit')) as [number | null]
  return code
}
