import { type Copies, type HostsDeps, reconcileLostHost } from '../../../src/controllers/hosts/index.ts'
import { LostHosts } from '../../../src/controllers/hosts/memory.ts'
import { LeaseWatch } from '../../../src/controllers/hosts/watch.ts'
import { sleep } from '../../../src/lib/clock.ts'
import { silentLog } from '../../../src/lib/log.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../../../src/resources/host-lease.ts'
import { Host, Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import { VirtualClock } from '../../fakes/virtual-clock.ts'
import { host, lease, machine } from './fixture.ts'
import { Gate, type How } from './gate.ts'
import { RuleAbidingHost } from './lost-host.ts'

export type Mode = 'guard' | 'command'
export type Leader = 'leader-1' | 'leader-2'

export type Op =
  | { readonly do: 'tick'; readonly ms: number }
  | { readonly do: 'cut' | 'mend' | 'crash' | 'boot' }
  | { readonly do: 'pause'; readonly leader: Leader; readonly after: number }
  | { readonly do: 'resume'; readonly leader: Leader }
  | { readonly do: 'step'; readonly actor: Leader | 'a'; readonly how: How }
  | { readonly do: 'wall'; readonly ms: number }
  | { readonly do: 'copy'; readonly leader: Leader }
  | { readonly do: 'place'; readonly on: 'a' | 'b' }
  | { readonly do: 'promise'; readonly name: string; readonly as: 'Failover' | 'Manual' }
  | { readonly do: 'refuse'; readonly on: boolean }
  /** The wall clock runs on by so much more each half second. */
  | { readonly do: 'drift'; readonly ms: number }

/** A clock whose wall time a test may make jump. */
class JumpingClock extends VirtualClock {
  jumped = 0
  override now(): number {
    return super.now() + this.jumped
  }
}

const stepMs = 500
const names = ['m', 'n', 'o']

/** Three hosts, of which a may be lost; two leaders who both believe that they lead; a store that fails. */
export class Model {
  readonly clock = new JumpingClock()
  readonly gate = new Gate()
  readonly #kv = new KvObjects(new MemoryKv(), { clock: this.clock, newUid: () => `uid-${this.#uids++}` })
  readonly #stop = new AbortController()
  readonly #paused = new Map<string, number>()
  readonly #copies = new Map<Leader, { -readonly [K in keyof Copies]: ReturnType<Copies[K]> }>()
  readonly onB = new Set<string>()
  readonly mode: Mode
  readonly a: RuleAbidingHost
  #uids = 0
  #cut = false
  #refusing = false
  #drift = 0
  /** What was broken, in words. */
  broken: string | undefined

  constructor(mode: Mode) {
    this.mode = mode
    this.a = new RuleAbidingHost(
      this.gate.store('a', this.#kv),
      this.clock,
      this.#stop.signal,
      mode === 'guard' ? 'guard' : 'none',
    )
  }

  async begin(): Promise<void> {
    const fencing = this.mode === 'guard' ? { mode: 'guard' } : { mode: 'command', command: ['fence_x'] }
    for (const name of ['a', 'b', 'c']) {
      const { status: _, ...one } = host(name, { spec: { fencing } })
      await this.#kv.create(Host, one)
      const { resourceVersion: _v, ...metadata } = lease(name).metadata
      await this.#kv.create(Lease, { ...lease(name), metadata })
    }
    for (const name of names) {
      const { status: _, ...one } = machine(name)
      const { resourceVersion: _v, ...metadata } = one.metadata
      const made = await this.#kv.create(VirtualMachine, { ...one, metadata })
      // Of n, nobody has promised that it is stopped.
      if (name === 'n') this.a.wanted.set(made.metadata.uid ?? '', 'Manual')
      await this.#kv.updateStatus(VirtualMachine, {
        ...made,
        status: { restarts: 0, networks: [], disks: [], conditions: [], hostName: 'a', placementEpoch: 3 },
      })
    }
    this.a.boot()
    for (const leader of ['leader-1', 'leader-2'] as const) {
      await this.#copy(leader)
      void this.#lead(leader)
    }
    void this.#renewOthers()
    await this.tick(8_000)
  }

  end(): void {
    this.#stop.abort(new Error('the test is over'))
  }

  async apply(op: Op): Promise<void> {
    await this.#apply(op)
    await this.#check()
  }

  async #apply(op: Op): Promise<void> {
    switch (op.do) {
      case 'tick':
        return this.tick(op.ms)
      case 'cut':
      case 'mend':
        this.#cut = op.do === 'cut'
        return
      case 'crash':
        return this.a.off()
      case 'boot':
        return this.a.boot()
      case 'pause':
        return void this.#paused.set(op.leader, op.after)
      case 'resume':
        return void this.#paused.delete(op.leader)
      case 'step':
        return void (await this.gate.let(op.actor, op.how))
      case 'wall':
        this.clock.jumped += op.ms
        return
      case 'copy':
        return this.#copy(op.leader)
      case 'place':
        return this.#place(op.on)
      case 'promise': {
        const vm = await this.#kv.get(VirtualMachine, { namespace: 'default', name: op.name })
        return void this.a.wanted.set(vm.metadata.uid ?? '', op.as)
      }
      case 'drift':
        this.#drift = op.ms
        return
      case 'refuse':
        this.#refusing = op.on
        return
    }
  }

  /** Time passes; whoever is not held goes on. */
  async tick(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= stepMs) {
      this.clock.jumped += this.#drift
      await this.clock.advance(stepMs)
      this.a.tick()
      await this.#settle()
      await this.#check()
    }
  }

  /** All faults end, but a stays away for ever. */
  async settleWithoutA(): Promise<void> {
    this.#cut = true
    this.#refusing = false
    this.a.off()
    this.#paused.clear()
    for (let i = 0; i < 150; i += 1) {
      for (const leader of ['leader-1', 'leader-2'] as const) await this.#copy(leader)
      await this.tick(1_000)
      await this.#place('b')
      if ((await this.staying()).length === 0) return
    }
  }

  /** Machines that are not on b, though they may be moved. */
  async staying(): Promise<readonly VirtualMachine[]> {
    const moves = ({ status }: VirtualMachine) => this.mode === 'command' || status?.onHostLoss === 'Failover'
    return (await this.machines()).filter((vm) => vm.status?.hostName !== 'b' && moves(vm))
  }

  async machines(): Promise<readonly VirtualMachine[]> {
    return (await this.#kv.list(VirtualMachine)).items
  }

  async #settle(): Promise<void> {
    for (let i = 0; i < 200; i += 1) {
      let went = await this.gate.let('others')
      if (await this.gate.let('a', this.#cut ? 'lost' : 'ok')) went = true
      for (const leader of ['leader-1', 'leader-2']) {
        const left = this.#paused.get(leader)
        if (left !== undefined && left <= 0) continue
        if (!(await this.gate.let(leader))) continue
        went = true
        if (left !== undefined) this.#paused.set(leader, left - 1)
      }
      await this.#check()
      if (!went) return
    }
  }

  async #check(): Promise<void> {
    for (const { metadata, status } of await this.machines()) {
      const { uid = '', name } = metadata
      if (status?.hostName !== 'b') this.onB.delete(uid)
      if (!this.a.running.has(uid)) continue
      if (this.onB.has(uid)) this.broken ??= `${name} runs on a and on b`
      if (status?.hostName !== 'a') this.broken ??= `${name} was taken while it ran on a`
    }
  }

  async #copy(leader: Leader): Promise<void> {
    const [hosts, machines, evidence, pools] = await Promise.all([
      this.#kv.list(Host),
      this.#kv.list(VirtualMachine),
      this.#kv.list(FenceEvidence),
      this.#kv.list(StoragePool),
    ])
    this.#copies.set(leader, {
      ...{ hosts: hosts.items, machines: machines.items, evidence: evidence.items, pools: pools.items },
    })
  }

  /** What placement, and the host it chose, do: at once. */
  async #place(on: 'a' | 'b'): Promise<void> {
    const { spec } = await this.#kv.get(Lease, { namespace: systemNamespace, name: hostLeaseName(on) })
    for (const vm of await this.machines()) {
      if (vm.status?.hostName !== undefined) continue
      if (vm.status?.process || vm.status?.launch) this.broken ??= 'it has no host, but a process'
      const placementEpoch = spec.leaseTransitions ?? 0
      await this.#kv.updateStatus(VirtualMachine, {
        ...vm,
        status: { ...vm.status!, hostName: on, placementEpoch },
      })
      if (on === 'b') this.onB.add(vm.metadata.uid ?? '')
    }
  }

  async #renewOthers(): Promise<void> {
    const objects = this.gate.store('others', this.#kv)
    while (!this.#stop.signal.aborted) {
      for (const name of ['b', 'c']) {
        const one = await objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(name) })
        await objects.update(Lease, { ...one, spec: { ...one.spec, renewTime: `${this.clock.elapsed()}` } })
      }
      await sleep(this.clock, 3_000, this.#stop.signal).catch(() => {})
    }
  }

  async #lead(name: Leader): Promise<void> {
    const { clock } = this
    const { signal } = this.#stop
    const objects = this.gate.store(name, this.#kv)
    const watch = new LeaseWatch(objects, clock, silentLog)
    const learnt = new Map<string, FenceEvidence>()
    const copy = () => this.#copies.get(name)!
    const deps: HostsDeps = {
      ...{ objects, clock, log: silentLog, memory: new LostHosts(), leader: { name, epoch: 1 } },
      ...{ brakePercent: 50, durationMs: 10_000, suspectMs: 6_000 },
      ...{ watched: () => watch.watched, look: () => watch.look(), tell: () => {} },
      learnt: (one) => learnt.set(one.metadata.name, one),
      copies: {
        ...{ hosts: () => copy().hosts, machines: () => copy().machines, pools: () => copy().pools },
        evidence: () => [
          ...new Map([
            ...learnt,
            ...copy().evidence.map((one) => [one.metadata.name, one] as const),
          ]).values(),
        ],
      },
      votes: () =>
        this.gate.call(name, async () =>
          this.#refusing
            ? { consents: ['b'], refusals: [{ host: 'c', why: 'it has lost the store too' }] }
            : { consents: ['b', 'c'], refusals: [] },
        ),
      runCommand: () =>
        this.gate.call(name, async () => {
          this.a.off()
          return { state: 'off', seen: 'status: exit code 2' } as const
        }),
    }
    while (!signal.aborted) {
      await watch.look()
      for (let passes = 0; passes < 12; passes += 1) {
        const outcome = await reconcileLostHost('a', deps, signal).catch(() => undefined)
        if (outcome?.next !== 'again') break
      }
      await sleep(clock, 1_000, signal).catch(() => {})
    }
  }
}
