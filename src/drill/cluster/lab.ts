import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep, systemClock } from '../../lib/clock.ts'
import { messageOf, PlasmaError } from '../../lib/errors.ts'
import type { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { Host as HostObject } from '../../resources/host.ts'
import {
  holderHost,
  hostLeaseName,
  leaderLease,
  leaseFacts,
  systemNamespace,
} from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { below, type Qemu, qemusOf } from '../qemus.ts'
import { Etcd } from './etcd.ts'
import { NamespaceHost } from './host.ts'
import { addressOf, Network } from './network.ts'
import { signal } from './processes.ts'

type Vm = VirtualMachine
type Host = NamespaceHost
export type Json = Readonly<Record<string, unknown>>

const api = '/apis/plasmavmc.io/v1alpha1'
const hostsPath = `${api}/hosts`
export const machinesPath = `${api}/namespaces/default/virtualmachines`
const leasesPath = `/apis/coordination.k8s.io/v1/namespaces/${systemNamespace}/leases`
/** Generous: it only ends what would never end. */
export const deadlineMs = 120_000
const pollMs = 50
/** What a server answers that has its store; another would answer the same. */
const answers = new Set(['NotFound', 'AlreadyExists', 'Conflict', 'Invalid', 'BadRequest', 'Forbidden'])
export const hostNames = ['h1', 'h2', 'h3'] as const

export interface ClusterOptions {
  /** The program that serves on each host: a file. */
  readonly program: string
  /** The folder in which the lab makes its own; that of the system where absent. */
  readonly folder?: string
  /** Where etcd's three members are: one on each host, or together on a machine of their own that the hosts reach. */
  readonly etcd?: 'on-hosts' | 'apart'
  /** More flags of `serve` on every host. */
  readonly flags?: readonly string[]
  /** How hosts are fenced; `guard` where absent. */
  readonly fencing?: Json
  /** Ends whatever is waited for. */
  readonly signal?: AbortSignal
}

/** Makes a network and a lab in it, whose servers are ready. @throws PlasmaError `NoNamespaces`; where it does not come up */
export async function openLab<L extends ClusterLab>(
  make: (network: Network) => L,
  options: Pick<ClusterOptions, 'etcd'> = {},
): Promise<L> {
  const network = await Network.make([...hostNames, ...(options.etcd === 'apart' ? ['etcd'] : [])])
  const lab = make(network)
  try {
    await lab.begin()
    return lab
  } catch (error) {
    const failure = lab.failure('the cluster is up', error)
    await lab.close().catch(() => {})
    throw failure
  }
}

/** Three hosts with a server each, a real etcd of three members, and one directory that all hosts see. */
export class ClusterLab {
  readonly dir: string
  /** The directory of the pool `shared`. */
  readonly pool: string
  readonly network: Network
  readonly hosts: readonly Host[]
  readonly #options: ClusterOptions
  #etcd: Etcd | undefined
  /** The host that answered last. */
  #answers: Host | undefined

  /** For `openLab`. */
  constructor(network: Network, options: ClusterOptions) {
    this.network = network
    this.#options = options
    this.dir = mkdtempSync(join(options.folder ?? tmpdir(), 'pvc-'))
    this.pool = join(this.dir, 'shared')
    mkdirSync(this.pool)
    const { program } = options
    this.hosts = hostNames.map((name, i) => {
      const [namespace, dir] = [network.namespace(name), join(this.dir, name)]
      const flags = () => this.flags
      return new NamespaceHost({ name, address: addressOf(i + 1), namespace, dir, program, flags })
    })
  }

  /** Starts etcd and the servers, and declares the shared pool and how hosts are fenced. */
  async begin(): Promise<void> {
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
    const store = ['--store', 'etcd', '--etcd-endpoints', this.etcd.endpoints]
    return [...store, ...(this.#options.flags ?? [])]
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

  /** Asks the servers in turn until one has an answer from the store; the last that had one first: others may be cut off. */
  async #ask<T>(call: (host: Host) => Promise<T>, via: readonly Host[] = this.hosts): Promise<T> {
    let last: unknown
    const isFirst = (host: Host) => Number(host === this.#answers)
    const on = via.filter(({ isOn }) => isOn).sort((a, b) => isFirst(b) - isFirst(a))
    for (const host of on) {
      try {
        const answer = await call(host)
        this.#answers = host
        return answer
      } catch (error) {
        // A refusal is an answer.
        if (answers.has(String((error as { code?: unknown }).code))) throw error
        last = error
      }
    }
    throw last ?? new Error('no host is on')
  }

  get<T>(path: string, via?: readonly Host[], timeoutMs = 3_000): Promise<T> {
    return this.#ask((host) => host.client.json<T>('GET', path, { timeoutMs }), via)
  }

  #post<T>(path: string, body: Json): Promise<T> {
    return this.#ask((host) => host.client.json<T>('POST', path, { body, timeoutMs: 10_000 }))
  }

  #patch<T>(path: string, body: Json, via?: readonly Host[]): Promise<T> {
    const options = { body, contentType: 'application/merge-patch+json', timeoutMs: 10_000 }
    return this.#ask((host) => host.client.json<T>('PATCH', path, options), via)
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

  patchHost(name: string, body: Json, via?: readonly Host[]): Promise<HostObject> {
    return this.#patch(`${hostsPath}/${name}`, body, via)
  }

  async hostObjects(via?: readonly Host[], timeoutMs?: number): Promise<HostObject[]> {
    return (await this.get<{ items: HostObject[] }>(hostsPath, via, timeoutMs)).items
  }

  lease(name: string): Promise<Lease> {
    return this.get(`${leasesPath}/${name}`)
  }

  hostLease(host: Host): Promise<Lease> {
    return this.lease(hostLeaseName(host.name))
  }

  evidence(name: string): Promise<FenceEvidence> {
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
      this.#options.signal?.throwIfAborted()
      try {
        const value = await test()
        if (value) return value
        last = undefined
      } catch (error) {
        last = error
      }
      await sleep(systemClock, pollMs, this.#options.signal)
    }
    throw this.failure(`${what} (not within ${ms / 1_000} s)`, last)
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
      if (this.#options.signal?.aborted) throw error
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
    const ours = below(this.dir)
    return qemusOf((argv) => ours(argv) && (uid === undefined || argv.includes(uid)))
  }

  /** Everything that a guest said on its console, on whichever hosts. */
  console(uid: string): string {
    return this.hosts.map((host) => host.console(uid)).join('')
  }

  /** Ends everything, and removes the folder unless `keep`. */
  async close(keep = false): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.close()))
    await this.#etcd?.close()
    await this.network.close()
    for (const { pid } of this.qemus()) signal(pid, 'SIGKILL')
    if (!keep) rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }

  /** The error for what was not seen. */
  failure(what: string, error: unknown): Error {
    const why = error === undefined ? '' : `: ${messageOf(error)}`
    const hint = `see the logs of the servers below ${this.dir}`
    return new PlasmaError('Timeout', `not seen: ${what}${why}`, { hint, cause: error })
  }
}
