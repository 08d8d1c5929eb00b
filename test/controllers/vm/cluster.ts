import type { strayWords } from '../../../src/controllers/vm/strays.ts'
import type { requireTenure } from '../../../src/controllers/vm/tenure.ts'
import type { Action, Observed, Plan, PlanEnv, ProcessFact } from '../../../src/controllers/vm/types.ts'
import type { LaunchRecord, Tenure } from '../../../src/host/ports.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import type { RunStrategy, VirtualMachine, VmAction, VmSpec } from '../../../src/resources/vm.ts'
import { machine, record } from './fixture.ts'
import { SafetyViolation } from './world.ts'
import { WorldQemu } from './world-qemu.ts'

export type HostName = 'host-a' | 'host-b'
type OnHostLoss = VmSpec['recovery']['onHostLoss']

/** What may happen to a machine and two hosts between the steps of their agents and of the leader. */
export type ClusterFault =
  /** The agent goes one step on: looks and plans, records, or takes the next of its actions. */
  | { readonly kind: 'step' | 'pass' | 'crash' | 'killQemu'; readonly host: HostName }
  | { readonly kind: 'tick'; readonly ms: number }
  /** The store is out of reach for guard and agent. */
  | { readonly kind: 'cut'; readonly host: HostName; readonly on: boolean }
  /** The leader reads, or writes what it decided on what it read last. */
  | { readonly kind: 'leader' }
  | { readonly kind: 'recovery'; readonly to: OnHostLoss }
  | { readonly kind: 'request'; readonly action: VmAction }
  /** A person says that a host is off which is not. */
  | { readonly kind: 'lie'; readonly host: HostName }

/** What can be put out of order to see that it is noticed. */
export interface Parts {
  readonly plan: (vm: VirtualMachine, seen: Observed, env: PlanEnv) => Plan
  readonly strayWords: typeof strayWords
  readonly requireTenure: typeof requireTenure
}

const deadlineMs = 6_000
const durationMs = 10_000
const tickMs = 500

class ClusterQemu extends WorldQemu {
  readonly epoch: number

  constructor(pid: number, now: number, launchId: string, vm: VirtualMachine) {
    super(pid, now, launchId, vm.spec)
    this.epoch = vm.status?.placementEpoch ?? -1
  }
}

/** A host: its QEMUs, what its guard knows of the lease, and where its agent is in a pass. */
class ClusterHost {
  readonly name: HostName
  qemus: ClusterQemu[] = []
  cut = false
  /** The guard: when the last renewal that succeeded was sent, under which epoch. */
  guard: { readonly sentAt: number; readonly epoch: number } | undefined
  pass:
    | { readonly at: 'planned'; readonly vm: VirtualMachine; readonly seen: Observed; readonly next: Plan }
    | { readonly at: 'recorded'; readonly vm: VirtualMachine; readonly seen: Observed; actions: Action[] }
    | undefined
  stopSeen: { readonly at: string; readonly since: number } | undefined
  launchError: Observed['launchError']

  constructor(name: HostName) {
    this.name = name
  }

  tenure(now: number): Tenure {
    const leftMs = this.guard ? this.guard.sentAt + deadlineMs - now : 0
    if (!this.guard || leftMs <= 0) return { state: 'lost', why: 'not renewed' }
    return { state: 'held', epoch: this.guard.epoch, leftMs }
  }
}

interface Lease {
  holder: string
  epoch: number
  renewedAt: number
}

/** One machine, two hosts whose guards stop what they must, and a leader that fences, takes and places. */
export class Cluster {
  vm: VirtualMachine
  now = Date.parse('2026-01-01T00:00:00Z')
  readonly hosts: Record<HostName, ClusterHost> = {
    'host-a': new ClusterHost('host-a'),
    'host-b': new ClusterHost('host-b'),
  }
  /** A person has said what is not so: two may run, until the one that must not is found. */
  lied = false
  readonly #leases: Record<HostName, Lease>
  readonly #evidence = new Map<string, FenceEvidence>()
  #read: VirtualMachine | undefined
  #version = 1
  #nextPid = 100
  #nextId = 1
  readonly #parts: Parts

  constructor(parts: Parts, strategy: RunStrategy, onHostLoss: OnHostLoss) {
    this.#parts = parts
    this.vm = machine({ runStrategy: strategy, recovery: { onHostLoss }, terminationGracePeriodSeconds: 10 })
    const lease = (holder: HostName, epoch: number) => ({ holder, epoch, renewedAt: this.now })
    // Epochs of two hosts have nothing to do with each other.
    this.#leases = { 'host-a': lease('host-a', 1), 'host-b': lease('host-b', 40) }
    for (const host of this.#all()) this.#guard(host)
  }

  get qemus(): readonly ClusterQemu[] {
    return this.#all().flatMap(({ qemus }) => qemus)
  }

  apply(fault: ClusterFault): void {
    switch (fault.kind) {
      case 'tick':
        return this.tick(fault.ms)
      case 'step':
        return this.#step(this.hosts[fault.host])
      case 'pass':
        return this.pass(fault.host)
      case 'crash':
        this.hosts[fault.host].pass = undefined
        this.hosts[fault.host].stopSeen = undefined
        this.hosts[fault.host].launchError = undefined
        return
      case 'killQemu':
        this.hosts[fault.host].qemus = []
        return
      case 'cut':
        this.hosts[fault.host].cut = fault.on
        return
      case 'leader':
        return this.leader()
      case 'recovery':
        return this.#write({ ...this.vm, spec: { ...this.vm.spec, recovery: { onHostLoss: fault.to } } })
      case 'request': {
        if (!this.vm.status || this.vm.status.request) return
        const request = { action: fault.action, id: `r-${this.#nextId++}`, at: '2026-01-01T00:00:00Z' }
        return this.#write({ ...this.vm, status: { ...this.vm.status, request } })
      }
      case 'lie':
        this.lied = true
        return this.#fence(this.hosts[fault.host], 'Operator')
    }
  }

  /** What is left of the faults goes; the system does the rest. */
  heal(): void {
    for (const host of this.#all()) host.cut = false
  }

  /** Time goes by, in steps in which guards renew or stop, and the leader counts. */
  tick(ms: number): void {
    for (let left = ms; left > 0; left -= tickMs) {
      this.now += tickMs
      for (const host of this.#all()) this.#guard(host)
      for (const { name } of this.#all()) {
        const { holder, renewedAt } = this.#leases[name]
        if (holder === name && this.now - renewedAt >= durationMs) this.#fence(this.hosts[name], 'Guard')
      }
    }
  }

  /** Ends the pass under way, or makes a whole one. */
  pass(host: HostName): void {
    for (let steps = 0; steps < 10; steps += 1) {
      this.#step(this.hosts[host])
      if (!this.hosts[host].pass) return
    }
  }

  leader(): void {
    const read = this.#read
    this.#read = undefined
    if (!read) {
      this.#read = this.vm
      return
    }
    const next = this.#taken(read) ?? this.#placed(read)
    if (next && read.metadata.resourceVersion === this.vm.metadata.resourceVersion) this.#write(next)
  }

  #all(): readonly ClusterHost[] {
    return Object.values(this.hosts)
  }

  #write(vm: VirtualMachine): void {
    this.#version += 1
    this.vm = { ...vm, metadata: { ...vm.metadata, resourceVersion: String(this.#version) } }
  }

  #guard(host: ClusterHost): void {
    const lease = this.#leases[host.name]
    const lost = host.tenure(this.now).state === 'lost'
    if (lost) host.qemus = host.qemus.filter(({ record: spec }) => spec.recovery.onHostLoss !== 'Failover')
    if (host.cut) return
    // It takes the lease back only now that what it had to stop is stopped; the epoch stays.
    lease.holder = host.name
    lease.renewedAt = this.now
    host.guard = { sentAt: this.now, epoch: lease.epoch }
  }

  #fence({ name }: ClusterHost, proof: FenceEvidence['spec']['proof']): void {
    const lease = this.#leases[name]
    lease.holder = 'fenced'
    lease.epoch += 1
    const evidence = {
      ...{ apiVersion: apiVersionOf(FenceEvidence), kind: FenceEvidence.kind },
      metadata: { name: `${name}-${lease.epoch}` },
      spec: { host: name, epoch: lease.epoch, proof, by: 'leader', at: '', votes: [], seen: '' },
    }
    this.#evidence.set(evidence.metadata.name, evidence)
    this.#read = undefined
  }

  /** The machine without the host that was lost, where the evidence is enough. */
  #taken(vm: VirtualMachine): VirtualMachine | undefined {
    const { status, spec } = vm
    const found = [...this.#evidence.values()].findLast((one) => one.spec.host === status?.hostName)
    if (!status || !found || found.spec.epoch <= (status.placementEpoch ?? 0)) return undefined
    const runs = status.process !== undefined || status.launch !== undefined
    const promised = spec.recovery.onHostLoss === 'Failover' && status.onHostLoss === 'Failover'
    if (runs && !promised && found.spec.proof !== 'Operator') return undefined
    const {
      hostName: _h,
      placementEpoch: _e,
      process,
      launch: _l,
      onHostLoss: _o,
      stop: _s,
      ...kept
    } = status
    const ended = { reason: 'HostLost' as const, at: '', ...(process && { launchId: process.launchId }) }
    const evidence = found.metadata.name
    return { ...vm, status: { ...kept, evidence, phase: 'Pending', ...(runs && { lastExit: ended }) } }
  }

  #placed(vm: VirtualMachine): VirtualMachine | undefined {
    if (vm.status?.hostName !== undefined || vm.status?.process || vm.status?.launch) return undefined
    const last = vm.status?.disksHost
    const names = (Object.keys(this.hosts) as HostName[]).filter((name) => this.#leases[name].holder === name)
    const name = names.find((one) => one !== last) ?? names[0]
    if (!name) return undefined
    const none = { restarts: 0, networks: [], disks: [], conditions: [] }
    const placementEpoch = this.#leases[name].epoch
    return { ...vm, status: { ...none, ...vm.status, hostName: name, disksHost: name, placementEpoch } }
  }

  #step(host: ClusterHost): void {
    switch (host.pass?.at) {
      case undefined:
        return this.#look(host)
      case 'planned':
        return this.#record(host, host.pass)
      case 'recorded':
        return this.#act(host, host.pass)
    }
  }

  #look(host: ClusterHost): void {
    if (host.cut) return
    const { vm } = this
    if (vm.status?.hostName !== host.name) {
      const evidence = this.#evidence.get(vm.status?.evidence ?? '')
      const why = host.qemus.map((qemu) => this.#parts.strayWords(vm, qemu, host.name, evidence))
      host.qemus = host.qemus.filter((_, i) => why[i] === undefined)
      if (host.qemus.length === 0) {
        host.launchError = undefined
        return
      }
      if (vm.status?.hostName !== undefined) return
    }
    const seen = this.#observe(host, vm)
    const next = this.#parts.plan(vm, seen, { now: this.now, newId: () => `launch-${this.#nextId++}` })
    host.pass = { at: 'planned', vm, seen, next }
  }

  #record(host: ClusterHost, { vm, seen, next }: Extract<ClusterHost['pass'], { at: 'planned' }>): void {
    host.pass = undefined
    if (host.cut || vm.metadata.resourceVersion !== this.vm.metadata.resourceVersion) return
    if (JSON.stringify(next.status) !== JSON.stringify(vm.status)) this.#write({ ...vm, status: next.status })
    if (next.actions.length > 0) host.pass = { at: 'recorded', vm: this.vm, seen, actions: [...next.actions] }
  }

  #act(host: ClusterHost, pass: Extract<ClusterHost['pass'], { at: 'recorded' }>): void {
    const action = pass.actions.shift()
    if (pass.actions.length === 0) host.pass = undefined
    if (!action) return
    this.#check(action, pass.vm, pass.seen)
    this.#execute(action, pass.vm, host)
    if (!this.lied && this.qemus.length > 1) throw new SafetyViolation('two QEMUs for one machine')
  }

  /** A guest is started only as planned under a lease that is held, and that is recorded. */
  #check(action: Action, vm: VirtualMachine, { tenure }: Observed): void {
    if (action.do === 'relinquish') {
      if (vm.status?.hostName !== undefined) throw new SafetyViolation('forgotten while it is its own')
      return
    }
    if (action.do !== 'launch' && action.do !== 'resume') return
    if (tenure.state !== 'held') throw new SafetyViolation(`${action.do} planned while the lease was lost`)
    if (vm.status?.placementEpoch !== tenure.epoch)
      throw new SafetyViolation(`${action.do} under an epoch that is not recorded`)
  }

  #execute(action: Action, vm: VirtualMachine, host: ClusterHost): void {
    const [qemu] = host.qemus
    const mayRun = () => {
      try {
        this.#parts.requireTenure(host.tenure(this.now), vm.status?.placementEpoch)
        return true
      } catch {
        return false
      }
    }
    switch (action.do) {
      case 'launch':
        if (qemu) return
        if (mayRun()) host.qemus = [new ClusterQemu(this.#nextPid++, this.now, action.launchId, vm)]
        else host.launchError = { launchId: action.launchId, code: 'LeaseLost', message: 'lost' }
        return
      case 'resume':
        if (qemu && mayRun()) qemu.state = 'running'
        return
      case 'pause':
        if (qemu?.state === 'running') qemu.state = 'paused'
        return
      case 'powerdown':
        if (qemu?.state === 'running') qemu.state = 'shutdown'
        return
      case 'quit':
      case 'kill':
        host.qemus = []
        return
      case 'noteSpec':
        if (qemu?.launchId === action.launchId) qemu.record = action.spec
        return
      case 'relinquish':
        if (qemu) throw new SafetyViolation('given up while it runs')
        host.launchError = undefined
        return
      default:
        return
    }
  }

  #observe(host: ClusterHost, vm: VirtualMachine): Observed {
    const stop = vm.status?.stop
    if (!stop) host.stopSeen = undefined
    else if (host.stopSeen?.at !== stop.at) host.stopSeen = { at: stop.at, since: this.now }
    return {
      ...{ bootId: `boot-${host.name}`, hostName: host.name, hostLabels: {}, heard: [], live: {} },
      ...{ launching: false, disks: [], localDisks: [], diskRetryInMs: 0, specHash: 'same', disposed: false },
      tenure: host.tenure(this.now),
      process: this.#process(host),
      ...(host.launchError && { launchError: host.launchError }),
      stopElapsedMs: host.stopSeen ? this.now - host.stopSeen.since : 0,
      endedElapsedMs: 0,
    }
  }

  #process({ name, qemus: [qemu] }: ClusterHost): ProcessFact {
    if (!qemu) return { state: 'absent' }
    const { pid, startTime, launchId, state } = qemu
    const launch: LaunchRecord = { ...record(qemu.record), launchId, epoch: qemu.epoch, hostName: name }
    return {
      ...{ state: 'alive', launchId, stopped: false, record: launch, seenForMs: 60_000, silentForMs: 0 },
      identity: { pid, startTime, bootId: `boot-${name}` },
      machine: { state: 'answered', status: state, running: state === 'running' },
    }
  }
}
