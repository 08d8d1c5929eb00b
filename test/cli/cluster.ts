import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { authenticate } from '../../src/auth/authenticate.ts'
import { allowed } from '../../src/auth/authorize.ts'
import { ensureCredentials } from '../../src/auth/credentials.ts'
import { bootstrapIdentity } from '../../src/auth/identity.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { apiVersionOf } from '../../src/resources/define.ts'
import { hostSpec } from '../../src/resources/host.ts'
import { hostLeaseName, leaseAnnotations, systemNamespace } from '../../src/resources/host-lease.ts'
import { Host, kinds, Lease, Namespace, namespaceNamed, StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine, type VmStatus, vmStatus } from '../../src/resources/vm.ts'
import { ensurePki } from '../../src/server/pki.ts'
import { createServer } from '../../src/server/server.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import { writeKubeconfig } from '../fakes/kube-server.ts'
import { type Result, type RunOptions, runCommand } from './fake-server.ts'

const at = '2026-01-01T00:00:00Z'

/** The real API over a store in memory, in which a test puts hosts and machines and plays their agents and the leader. */
export class Cluster {
  readonly objects = new KvObjects(new MemoryKv(), { clock: systemClock, newUid: () => crypto.randomUUID() })
  readonly #ended = new AbortController()
  readonly #loops: Promise<void>[] = []
  #run: (argv: readonly string[], options?: RunOptions) => Promise<Result> = () => Promise.reject(new Error())
  #close = async () => {}
  accessKeyId = ''
  /** By which commands run as jane, with a token, and know of no data folder. */
  kubeconfig = ''

  static async start(hosts: readonly string[]): Promise<Cluster> {
    const cluster = new Cluster()
    await cluster.#serve()
    for (const name of ['default', systemNamespace])
      await cluster.objects.create(Namespace, namespaceNamed(name))
    for (const name of hosts) await cluster.addHost(name)
    return cluster
  }

  async #serve(): Promise<void> {
    const dataDir = await mkdtemp(join(tmpdir(), 'pvmc-cluster-'))
    const { ca, key, cert } = await ensurePki(join(dataDir, 'pki'), { names: [], now: Date.now() })
    const { accessKeyId, secretAccessKey: secret } = ensureCredentials(dataDir)
    this.accessKeyId = accessKeyId
    const admin = { secret, identity: bootstrapIdentity }
    const server = createServer({
      ...{ objects: this.objects, kinds, clock: systemClock, log: silentLog, version: '0', ready: () => [] },
      ...{ audit: () => {}, authorize: allowed, tls: { key, cert } },
      authenticate: (request) =>
        JSON.stringify(request.headers).includes('Bearer of-jane')
          ? { ok: true, identity: { ...bootstrapIdentity, name: 'jane' } }
          : authenticate(request, {
              secretOf: (id) => (id === accessKeyId ? admin : undefined),
              ...{ now: Date.now(), region: 'local', service: 'plasmavmc' },
            }),
    })
    await server.listen({ host: '127.0.0.1', port: 0 })
    const address = `127.0.0.1:${(server.server.address() as AddressInfo).port}`
    this.kubeconfig = join(dataDir, 'kubeconfig')
    writeKubeconfig(this.kubeconfig, { ca, server: `https://${address}`, user: { token: 'of-jane' } })
    this.#run = (argv, options) => runCommand(['--server', address, '--data-dir', dataDir, ...argv], options)
    this.#close = async () => {
      await server.close()
      await rm(dataDir, { recursive: true })
    }
  }

  run(...argv: readonly string[]): Promise<Result> {
    return this.#run(argv)
  }

  /** Runs a command line until it is told to stop. */
  runUntil(signal: AbortSignal, ...argv: readonly string[]): Promise<Result> {
    return this.#run(argv, { signal })
  }

  async close(): Promise<void> {
    this.#ended.abort()
    await Promise.all(this.#loops)
    await this.#close()
  }

  host(name: string): Promise<Host> {
    return this.objects.get(Host, { name })
  }

  /** A host that is well: Ready, with a lease. */
  async addHost(name: string): Promise<void> {
    const host = await this.objects.create(Host, {
      ...{ apiVersion: apiVersionOf(Host), kind: 'Host', metadata: { name } },
      spec: hostSpec.parse({}),
    } as Host)
    const ready = {
      type: 'Ready',
      status: 'True',
      reason: 'Ready',
      message: '',
      lastTransitionTime: at,
    } as const
    const facts = { cpus: 8, memory: '16Gi', accelerator: 'tcg', qemuVersion: '7.2.0', epoch: 1 }
    const lists = { addresses: ['192.0.2.1'], capabilities: ['live-migration'], orphans: [] }
    await this.objects.updateStatus(Host, { ...host, status: { ...facts, ...lists, conditions: [ready] } })
    const said = {
      deadlineMs: 600,
      stopMs: 300,
      selfFence: 'guard',
      members: ['a', 'b'],
      agent: 'alive',
    } as const
    await this.objects.create(Lease, {
      ...{ apiVersion: apiVersionOf(Lease), kind: 'Lease' },
      metadata: {
        ...{ name: hostLeaseName(name), namespace: systemNamespace },
        annotations: leaseAnnotations({ ...said, bootId: 'boot', peer: '192.0.2.1:7444' }),
      },
      spec: {
        holderIdentity: `${name}/id-of-${name}`,
        leaseTransitions: 1,
        leaseDurationSeconds: 1,
        renewTime: `${at.slice(0, -1)}.000000Z`,
      },
    })
  }

  lease(host: string): Promise<Lease> {
    return this.objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(host) })
  }

  async setLease(host: string, spec: Lease['spec'], annotations: Record<string, string> = {}): Promise<void> {
    const before = await this.lease(host)
    const all = { ...before.metadata.annotations, ...annotations }
    const metadata = { ...before.metadata, annotations: all }
    await this.objects.update(Lease, { ...before, metadata, spec: { ...before.spec, ...spec } })
  }

  pool(name: string, shared: boolean): Promise<StoragePool> {
    return this.objects.create(StoragePool, {
      ...{ apiVersion: apiVersionOf(StoragePool), kind: 'StoragePool', metadata: { name } },
      spec: { path: `/pools/${name}`, shared },
    })
  }

  /** A machine that runs on a host. */
  async machine(name: string, host: string, spec: object = {}, status: object = {}): Promise<void> {
    const vm = await this.objects.create(VirtualMachine, {
      ...{ apiVersion: apiVersionOf(VirtualMachine), kind: 'VirtualMachine' },
      metadata: { name, namespace: 'default' },
      spec: { memory: '64Mi', ...spec },
    } as unknown as VirtualMachine)
    const process = {
      ...{
        pid: 7,
        startTime: 1,
        bootId: 'boot',
        launchId: 'l',
        accelerator: 'tcg',
        startedAt: at,
        specHash: 'h',
      },
    }
    const running = { phase: 'Running', hostName: host, placementEpoch: 1, process }
    await this.objects.updateStatus(VirtualMachine, {
      ...vm,
      status: vmStatus.parse({ ...running, ...status }),
    })
  }

  vm(name: string): Promise<VirtualMachine> {
    return this.objects.get(VirtualMachine, { namespace: 'default', name })
  }

  async setStatus(name: string, change: (status: VmStatus) => VmStatus): Promise<void> {
    const vm = await this.vm(name)
    await this.objects.updateStatus(VirtualMachine, {
      ...vm,
      status: change(vm.status ?? vmStatus.parse({})),
    })
  }

  /** Calls `react` with each state of each machine from now on, one after the other. */
  play(react: (vm: VirtualMachine) => Promise<unknown>): void {
    const { signal } = this.#ended
    const loop = async () => {
      const { resourceVersion } = await this.objects.list(VirtualMachine)
      for await (const { type, object } of this.objects.watch(VirtualMachine, { resourceVersion, signal }))
        if (type !== 'DELETED') await react(object)
    }
    this.#loops.push(
      loop().catch((error: unknown) => {
        if (!signal.aborted) throw error
      }),
    )
  }
}
