import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { vi } from 'vitest'
import { Etcd } from '../../../src/drill/cluster/etcd.ts'
import { addressOf, Network } from '../../../src/drill/cluster/network.ts'
import { signal } from '../../../src/drill/cluster/processes.ts'
import { messageOf } from '../../../src/lib/errors.ts'
import type { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import type { Host as HostObject } from '../../../src/resources/host.ts'
import {
  holderHost,
  hostLeaseName,
  leaderLease,
  leaseFacts,
  systemNamespace,
} from '../../../src/resources/host-lease.ts'
import type { Lease } from '../../../src/resources/kinds.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import { machinesPath, program } from '../lab.ts'
import { type Qemu, qemusOf } from '../proc.ts'
import { type Beat, brokenBeats, diskBeats, toldBeats } from './beats.ts'
import { Host } from './host.ts'

type Vm = VirtualMachine
type Json = Readonly<Record<string, unknown>>
const api = '/apis/plasmavmc.io/v1alpha1'
const hostsPath = `${api}/hosts`
const leasesPath = `/apis/coordination.k8s.io/v1/namespaces/${systemNamespace}/leases`
/** Generous: it only ends a test that would never end. */
export const deadlineMs = 120_000
vi.setConfig({ testTimeout: 3 * deadlineMs, hookTimeout: 3 * deadlineMs })
const pollMs = 50
/** What a server answers that has its store; another would answer the same. */
const answers = new Set(['NotFound', 'AlreadyExists', 'Conflict', 'Invalid', 'BadRequest', 'Forbidden'])
const hostNames = ['h1', 'h2', 'h3'] as const

export interface ClusterOptions {
  /** Where etcd's three members are: one on each host, or together on a machine of their own that the hosts reach. */
  readonly etcd?: 'on-hosts' | 'apart'
  /** More flags of `serve` on every host. */
  readonly flags?: readonly string[]
  /** How hosts are fenced; `guard` where absent. */
  readonly fencing?: Json
}

/** Two QEMUs of one machine that were seen alive at one moment. */
interface Twins {
  readonly uid: string
  readonly at: number
  readonly pids: readonly string[]
}

/** Three hosts with a server each, a real etcd of three members, one directory that all hosts see, and a witness. */
export class Cluster {
  readonly dir = mkdtempSync(join(tmpdir(), 'pvc-'))
  /** The directory of the pool `shared`. */
  readonly pool = join(this.dir, 'shared')
  readonly network: Network
  readonly hosts: readonly Host[]
  readonly #options: ClusterOptions
  #etcd: Etcd | undefined
  #witness: ChildProcess | undefined
  readonly #expected = new Map<string, string>()
  readonly #told = new Map<string, Map<string, Beat>>()

  private constructor(network: Network, options: ClusterOptions) {
    this.network = network
    this.#options = options
    mkdirSync(this.pool)
    this.hosts = hostNames.map((name, i) => {
      const [namespace, dir] = [network.namespace(name), join(this.dir, name)]
      return new Host({ name, address: addressOf(i + 1), namespace, dir, program, flags: () => this.flags })
    })
  }

  /** A cluster whose servers are ready. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const network = await Network.make([...hostNames, ...(options.etcd === 'apart' ? ['etcd'] : [])])
    const cluster = new Cluster(network, options)
    try {
      await cluster.#begin()
      return cluster
    } catch (error) {
      const failure = cluster.failure('the cluster is up', error)
      await cluster.close().catch(() => {})
      throw failure
    }
  }

  async #begin(): Promise<void> {
    this.#startWitness()
    const apart = { namespace: this.network.namespace('etcd'), address: this.etcdAddress }
    this.#etcd = await Etcd.start(
      this.hosts.map(({ name, address }) =>
        this.#options.etcd === 'apart' ? apart : { namespace: this.network.namespace(name), address },
      ),
    )
    await Promise.all(this.hosts.map((host) => host.boot()))
    for (const host of this.hosts) await host.serve()
    await this.ready(...this.hosts)
    await this.#post(`${api}/storagepools`, {
      ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'StoragePool', metadata: { name: 'shared' } },
      spec: { path: this.pool, shared: true },
    })
    const fencing = this.#options.fencing ?? { mode: 'guard' }
    for (const host of this.hosts) await this.patchHost(host.name, { spec: { fencing } })
  }

  get etcd(): Etcd {
    if (!this.#etcd) throw new Error('etcd is not there yet')
    return this.#etcd
  }

  /** Where etcd is for the hosts when it is apart from them. */
  get etcdAddress(): string {
    return addressOf(hostNames.length + 1)
  }

  /** Flags of every server besides those of its host. */
  get flags(): string[] {
    return [
      '--accelerator',
      'tcg',
      '--store',
      'etcd',
      '--etcd-endpoints',
      this.etcd.endpoints,
      ...(this.#options.flags ?? []),
    ]
  }

  host(name: string | undefined): Host {
    const found = this.hosts.find((host) => host.name === name)
    if (!found) throw new Error(`there is no host ${name}`)
    return found
  }

  /** The hosts but these. */
  others(...hosts: readonly Host[]): Host[] {
    return this.hosts.filter((host) => !hosts.includes(host))
  }

  /** Waits until these servers are ready. */
  async ready(...hosts: readonly Host[]): Promise<void> {
    for (const host of hosts) await this.until(`the server of ${host.name} is ready`, () => host.isReady())
  }

  /** Asks the servers in turn until one has an answer from the store. */
  async #ask<T>(call: (host: Host) => Promise<T>, via: readonly Host[] = this.hosts): Promise<T> {
    let last: unknown
    for (const host of via.filter(({ isOn }) => isOn)) {
      try {
        return await call(host)
      } catch (error) {
        // A refusal is an answer.
        if (answers.has(String((error as { code?: unknown }).code))) throw error
        last = error
      }
    }
    throw last ?? new Error('no host is on')
  }

  get<T>(path: string, via?: readonly Host[]): Promise<T> {
    return this.#ask((host) => host.client.json<T>('GET', path, { timeoutMs: 3_000 }), via)
  }

  #post<T>(path: string, body: Json): Promise<T> {
    return this.#ask((host) => host.client.json<T>('POST', path, { body, timeoutMs: 10_000 }))
  }

  #patch<T>(path: string, body: Json): Promise<T> {
    const contentType = 'application/merge-patch+json'
    return this.#ask((host) => host.client.json<T>('PATCH', path, { body, contentType, timeoutMs: 10_000 }))
  }

  create(manifest: Json): Promise<Vm> {
    return this.#post(machinesPath, manifest)
  }

  patch(name: string, body: Json): Promise<Vm> {
    return this.#patch(`${machinesPath}/${name}`, body)
  }

  remove(name: string): Promise<unknown> {
    return this.#ask((host) => host.client.json('DELETE', `${machinesPath}/${name}`, { timeoutMs: 10_000 }))
  }

  vm(name: string, via?: readonly Host[]): Promise<Vm> {
    return this.get(`${machinesPath}/${name}`, via)
  }

  async vms(): Promise<Vm[]> {
    return (await this.get<{ items: Vm[] }>(machinesPath)).items
  }

  patchHost(name: string, body: Json): Promise<HostObject> {
    return this.#patch(`${hostsPath}/${name}`, body)
  }

  async hostObjects(via?: readonly Host[]): Promise<HostObject[]> {
    return (await this.get<{ items: HostObject[] }>(hostsPath, via)).items
  }

  lease(name: string): Promise<Lease> {
    return this.get(`${leasesPath}/${name}`)
  }

  hostLease(host: Host): Promise<Lease> {
    return this.lease(hostLeaseName(host.name))
  }

  async evidence(name: string): Promise<FenceEvidence> {
    return this.get(`${api}/fenceevidences/${name}`)
  }

  /** Waits until every host's lease says that a guard watches it, and names all hosts. */
  async watched(): Promise<void> {
    for (const host of this.hosts) {
      await this.until(`${host.name} is watched by a guard`, async () => {
        const facts = leaseFacts(await this.hostLease(host))
        return facts.selfFence !== 'none' && facts.members.join() === hostNames.join()
      })
    }
  }

  /** Creates machines on one host and waits until they run there, guarded where their host would stop them. */
  async createOn(host: Host, ...manifests: readonly Json[]): Promise<Vm[]> {
    for (const { name } of this.others(host)) await this.patchHost(name, { spec: { unschedulable: true } })
    const created = []
    for (const manifest of manifests) created.push(await this.create(manifest))
    const wait = ({ metadata, spec }: Vm) =>
      this.sees(
        metadata.name,
        `runs on ${host.name}`,
        ({ status }) =>
          status?.hostName === host.name &&
          status.phase === 'Running' &&
          status.onHostLoss === spec.recovery.onHostLoss,
      )
    const running = await Promise.all(created.map(wait))
    for (const { name } of this.others(host)) await this.patchHost(name, { spec: { unschedulable: false } })
    return running
  }

  /** A host that does not lead. */
  async follower(): Promise<Host> {
    return this.others(await this.leader())[0]!
  }

  /** The host that leads now, by the leader's lease. */
  async leader(): Promise<Host> {
    return this.host(holderHost((await this.lease(leaderLease)).spec.holderIdentity))
  }

  /** Tries until `test` gives something that is not false; its errors count as not yet. @throws Error naming `what` */
  async until<T>(what: string, test: () => T | Promise<T>, ms = deadlineMs): Promise<NonNullable<T>> {
    const deadline = performance.now() + ms
    let last: unknown
    while (performance.now() < deadline) {
      try {
        const value = await test()
        if (value) return value
        last = undefined
      } catch (error) {
        last = error
      }
      await new Promise((done) => setTimeout(done, pollMs))
    }
    throw this.failure(what, last)
  }

  /** Waits until a machine is so. @throws Error naming `what` and what it was last */
  async sees(name: string, what: string, wanted: (vm: Vm) => boolean, ms = deadlineMs): Promise<Vm> {
    let last: Vm | undefined
    try {
      return await this.until(
        `${name}: ${what}`,
        async () => {
          last = await this.vm(name)
          return wanted(last) ? last : undefined
        },
        ms,
      )
    } catch (error) {
      throw new Error(`${messageOf(error)}\n${JSON.stringify(last?.status, null, 1)}`, { cause: error })
    }
  }

  /** Waits until it runs, on one of these hosts where some are given. */
  running(name: string, on: readonly Host[] = this.hosts, ms = deadlineMs): Promise<Vm> {
    const there = ({ status }: Vm) => on.some((host) => host.name === status?.hostName)
    const what = `is Running on ${on.map((host) => host.name).join(' or ')}`
    return this.sees(name, what, (vm) => vm.status?.phase === 'Running' && there(vm), ms)
  }

  /** The live QEMUs with this uid on all hosts, or all of the lab. */
  qemus(uid?: string): Qemu[] {
    const ours = (argv: readonly string[]) => argv.some((word) => word.includes(`${this.dir}/`))
    return qemusOf((argv) => ours(argv) && (uid === undefined || argv.includes(uid)))
  }

  /** Everything that a guest said on its console, on whichever hosts. */
  console(uid: string): string {
    return this.hosts.map((host) => host.console(uid)).join('')
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

  /** From now on two QEMUs of this machine at once are no failure, for the reason given. */
  expectTwins(uid: string, why: string): void {
    this.#expected.set(uid, why)
  }

  #startWitness(): void {
    const output = openSync(join(this.dir, 'witness'), 'a')
    const program = [resolve('test/e2e/cluster/witness.ts'), this.dir]
    const argv = ['--pdeathsig', 'KILL', '--', process.execPath, '--disable-warning=ExperimentalWarning']
    this.#witness = spawn('setpriv', [...argv, ...program], { stdio: ['ignore', output, 'inherit'] })
    closeSync(output)
  }

  /** Ends the witness. @returns what it saw and must not have @throws Error where it did not look */
  async #testimony(): Promise<Twins[]> {
    if (!this.#witness) return []
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
  async close(): Promise<void> {
    const seen = await this.#testimony().finally(async () => {
      await Promise.all(this.hosts.map((host) => host.close()))
      await this.#etcd?.close()
      await this.network.close()
      for (const { pid } of this.qemus()) signal(pid, 'SIGKILL')
      rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 })
    })
    if (seen[0]) throw new Error(`two QEMUs of one machine, ${seen.length} times: ${JSON.stringify(seen[0])}`)
  }

  failure(what: string, error: unknown): Error {
    const logs = this.hosts.map((host) => `--- ${host.name}\n${host.lastWords(2_500)}`)
    const why = error === undefined ? '' : ` (${messageOf(error)})`
    return new Error(`not seen: ${what}${why}\n${logs.join('\n')}`, { cause: error })
  }
}
