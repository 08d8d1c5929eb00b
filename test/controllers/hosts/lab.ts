import { onTestFinished } from 'vitest'
import { type HostsOptions, runHosts } from '../../../src/controllers/hosts/start.ts'
import { LeaseWatch } from '../../../src/controllers/hosts/watch.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../../../src/resources/host-lease.ts'
import { Host, Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { Informer } from '../../../src/runtime/informer.ts'
import { Prometheus } from '../../../src/server/prometheus.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { host, lease, type machine } from './fixture.ts'

/** A clock whose wall time a test may make jump. */
export class JumpingClock extends VirtualClock {
  jumped = 0
  override now(): number {
    return super.now() + this.jumped
  }
}

type Call = Readonly<{ call: string; kind: string; name: string }>

/** Hosts a, b and c, whose leases the test renews, and the real controller over a store in memory. */
export class Lab {
  readonly clock = new JumpingClock()
  readonly calls: Call[] = []
  readonly told: string[] = []
  /** Hosts that renew their leases. */
  readonly alive = new Set(['a', 'b', 'c'])
  /** What goes wrong with a call, before it is made. */
  trouble: (call: Call) => Error | undefined = () => undefined
  readonly objects: KvObjects
  readonly watch: LeaseWatch
  readonly meter = new Prometheus()
  readonly #signal: AbortSignal
  #uids = 0

  constructor() {
    this.objects = new KvObjects(new MemoryKv(), { clock: this.clock, newUid: () => `uid-${this.#uids++}` })
    const stop = new AbortController()
    onTestFinished(() => stop.abort(new Error('the test is over')))
    this.#signal = stop.signal
    this.watch = new LeaseWatch(this.store(), this.clock, silentLog, this.meter)
  }

  /** The store as a leader has it: each call is noted, and may fail. */
  store(): ObjectStore {
    const { objects, calls } = this
    const through = async <T>(call: string, kind: { kind: string }, name: string, work: () => Promise<T>) => {
      const made = { call, kind: kind.kind, name }
      calls.push(made)
      const error = this.trouble(made)
      if (error) throw error
      return work()
    }
    return {
      get: (kind, ref) => through('get', kind, ref.name, () => objects.get(kind, ref)),
      list: (kind, options) => through('list', kind, '', () => objects.list(kind, options)),
      create: (kind, one, options) =>
        through('create', kind, one.metadata.name, () => objects.create(kind, one, options)),
      update: (kind, one, options) =>
        through('update', kind, one.metadata.name, () => objects.update(kind, one, options)),
      updateStatus: (kind, one, options) =>
        through('updateStatus', kind, one.metadata.name, () => objects.updateStatus(kind, one, options)),
      delete: (kind, ref, options) =>
        through('delete', kind, ref.name, () => objects.delete(kind, ref, options)),
      watch: (kind, options) => objects.watch(kind, options),
    }
  }

  async hosts(fencing: object, names: readonly string[] = ['a', 'b', 'c']): Promise<void> {
    for (const name of names) {
      const { status, ...one } = host(name, { spec: { fencing } })
      const made = await this.objects.create(Host, one)
      await this.objects.updateStatus(Host, { ...made, ...(status && { status }) })
      const { resourceVersion: _v, ...metadata } = lease(name).metadata
      await this.objects.create(Lease, { ...lease(name), metadata })
    }
  }

  async add(vm: ReturnType<typeof machine>): Promise<void> {
    const { status, metadata, ...rest } = vm
    const { resourceVersion: _v, ...fresh } = metadata
    const made = await this.objects.create(VirtualMachine, { ...rest, metadata: fresh })
    await this.objects.updateStatus(VirtualMachine, { ...made, ...(status && { status }) })
  }

  /** Watches the leases, as every server that may lead does, and renews those of hosts that live. */
  begin(): void {
    void this.watch.run(this.#signal)
  }

  /** A leader's term; @returns what ends it */
  lead(options: Partial<HostsOptions> = {}, name = 'b'): () => Promise<void> {
    const end = new AbortController()
    const signal = AbortSignal.any([this.#signal, end.signal])
    const { clock, objects } = this
    const log = silentLog
    const copies = {
      hosts: new Informer(objects, Host, log, clock),
      vms: new Informer(objects, VirtualMachine, log, clock),
      pools: new Informer(objects, StoragePool, log, clock),
      evidence: new Informer(objects, FenceEvidence, log, clock),
    }
    const running = runHosts(
      {
        ...{ objects: this.store(), ...copies, clock, log, meter: this.meter },
        ...{ watch: this.watch, leader: { name, epoch: 1 } },
        votes: async () => ({ consents: ['b', 'c'], refusals: [] }),
        runCommand: async () => ({ state: 'off', seen: 'status: exit code 2' }),
        tell: (kind, about, { reason }) => this.told.push(`${kind.kind} ${about.metadata.name}: ${reason}`),
        ...options,
      },
      signal,
    )
    for (const copy of Object.values(copies)) void copy.run(signal)
    return () => {
      end.abort(new Error('another leads'))
      return running
    }
  }

  /** Time passes second by second; whoever lives renews every three. */
  async pass(seconds: number): Promise<void> {
    for (let i = 0; i < seconds; i += 1) {
      if (Math.round(this.clock.elapsed() / 1000) % 3 === 0)
        for (const name of this.alive) await this.renew(name)
      await this.clock.advance(1_000)
      await this.clock.settle()
    }
  }

  async renew(name: string): Promise<void> {
    const one = await this.lease(name)
    const spec = { ...one.spec, holderIdentity: name, renewTime: `${this.clock.elapsed()}` }
    await this.objects.update(Lease, { ...one, spec })
  }

  lease = (name: string) => this.objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(name) })
  host = (name: string) => this.objects.get(Host, { name })
  vm = (name: string) => this.objects.get(VirtualMachine, { namespace: 'default', name })
  evidence = async () => (await this.objects.list(FenceEvidence)).items

  async condition(name: string, type: string): Promise<string | undefined> {
    const found = (await this.host(name)).status?.conditions.find((one) => one.type === type)
    return found && `${found.status}/${found.reason}`
  }
}
