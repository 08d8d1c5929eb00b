import { needsFacts } from '../../../src/controllers/vm/plan-live.ts'
import type { Action, Observed, Plan, PlanEnv, ProcessFact } from '../../../src/controllers/vm/types.ts'
import type { DiskState, LaunchRecord } from '../../../src/host/ports.ts'
import { bytesOf, formatQuantity } from '../../../src/resources/quantity.ts'
import {
  type RunStrategy,
  VirtualMachine,
  type VmAction,
  vmFinalizer,
  vmSpec,
} from '../../../src/resources/vm.ts'

import { record } from './fixture.ts'
import { WorldQemu } from './world-qemu.ts'

type Planner = (vm: VirtualMachine, seen: Observed, env: PlanEnv) => Plan

/** What may happen to the world between and during passes. */
export type Fault =
  | { readonly kind: 'pass' }
  | { readonly kind: 'tick'; readonly ms: number }
  | {
      readonly kind: 'guest'
      readonly does: 'shutdown' | 'guest-panicked' | 'io-error' | 'internal-error' | 'watchdog'
    }
  | { readonly kind: 'killQemu' }
  | { readonly kind: 'freeze'; readonly on: boolean }
  | { readonly kind: 'mute'; readonly on: boolean }
  | { readonly kind: 'blind'; readonly on: boolean }
  | { readonly kind: 'deaf'; readonly on: boolean }
  | { readonly kind: 'agentCrash'; readonly when: 'idle' | 'beforeRecord' | 'beforeExecute' | 'afterFork' }
  | { readonly kind: 'reboot' }
  | { readonly kind: 'strategy'; readonly to: RunStrategy }
  | { readonly kind: 'request'; readonly action: VmAction }
  | { readonly kind: 'delete' }
  /** Another spec: its disks, and memory that no running QEMU takes. */
  | { readonly kind: 'spec'; readonly disks: readonly DiskSpec[]; readonly memory: string }
  /** The guest lets no device go. */
  | { readonly kind: 'holds'; readonly on: boolean }

type DiskSpec = { readonly name: string; readonly size: string }

export class SafetyViolation extends Error {}

const uid = '11111111-1111-4111-8111-111111111111'

function recordOf({ record: spec, pending, launchId }: WorldQemu): LaunchRecord {
  const changing = pending.adding.length + pending.leaving.length > 0
  return { ...record(spec), launchId, ...(changing && { pending }) }
}

/** One machine on one host, with virtual time and a process table; checks the safety rules at every step. */
export class World {
  vm: VirtualMachine | undefined
  readonly qemus: WorldQemu[] = []
  /** Bytes of the disks' files. */
  readonly files = new Map<string, number>()
  bootId = 'boot-1'
  now = Date.parse('2026-01-01T00:00:00Z')
  muted = false
  blind = false
  /** Guests ignore powerdown. */
  deaf = false
  #crash: 'idle' | 'beforeRecord' | 'beforeExecute' | 'afterFork' | undefined
  #nextPid = 100
  #nextId = 1
  #disposed = false
  #stopSeen: { at: string; since: number } | undefined
  #endSeen: { at: string; since: number } | undefined
  #seenAt = 0
  #known: WorldQemu | undefined
  #holds = false
  readonly #tried = new Map<string, { tries: number; at: number; error?: string }>()
  readonly #plan: Planner

  constructor(plan: Planner, strategy: RunStrategy) {
    this.#plan = plan
    const disks = [{ name: 'root', size: '1Gi' }]
    const body = VirtualMachine.body.parse({
      spec: { machine: 'pc', runStrategy: strategy, disks, terminationGracePeriodSeconds: 10 },
    })
    this.vm = {
      apiVersion: 'plasmavmc.io/v1alpha1',
      kind: 'VirtualMachine',
      metadata: { name: 'web', namespace: 'default', uid, generation: 1 },
      ...body,
    } as VirtualMachine
  }

  apply(fault: Fault): void {
    const [qemu] = this.qemus
    switch (fault.kind) {
      case 'pass':
        return this.pass()
      case 'tick':
        this.now += fault.ms
        return
      case 'guest':
        if (qemu?.state === 'running' && !qemu.stopped) qemu.state = fault.does
        return
      case 'killQemu':
        this.qemus.length = 0
        return
      case 'freeze':
        if (qemu) qemu.stopped = fault.on
        return
      case 'mute':
        this.muted = fault.on
        return
      case 'blind':
        this.blind = fault.on
        return
      case 'deaf':
        this.deaf = fault.on
        return
      case 'agentCrash':
        this.#crash = fault.when
        this.pass()
        return this.#forget()
      case 'reboot':
        this.qemus.length = 0
        this.bootId = `boot-${this.#nextId++}`
        return this.#forget()
      case 'strategy':
        if (this.vm) this.vm = { ...this.vm, spec: { ...this.vm.spec, runStrategy: fault.to } }
        return
      case 'spec':
        return this.#respec(fault)
      case 'holds':
        this.#holds = fault.on
        return
      case 'request':
        return this.#request(fault.action)
      case 'delete':
        if (!this.vm?.metadata.finalizers?.length) this.vm = undefined
        else
          this.vm = {
            ...this.vm,
            metadata: { ...this.vm.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' },
          }
        return
    }
  }

  /** Ends all faults that hold on, among them a person's wish that a disk be smaller than it is. */
  heal(): void {
    this.muted = false
    this.blind = false
    this.deaf = false
    this.#holds = false
    if (this.vm) {
      const { disks, memory } = this.vm.spec
      const sane = disks.map(({ name, size = 0 }) => {
        const bytes = Math.max(bytesOf(size), this.files.get(name) ?? 0)
        return { name, size: formatQuantity(bytes) }
      })
      this.#respec({ disks: sane, memory: String(memory) })
    }
    // Beyond every back-off.
    this.now += 400_000
    this.#crash = undefined
    for (const qemu of this.qemus) qemu.stopped = false
  }

  pass(): void {
    if (!this.vm) return
    if (!this.#holds) for (const qemu of this.qemus) qemu.guestRuns()
    const seen = this.#observe(this.vm)
    const next = this.#plan(this.vm, seen, { now: this.now, newId: () => `launch-${this.#nextId++}` })
    if (this.#crash === 'beforeRecord') return
    this.vm = { ...this.vm, status: next.status }
    if (this.#crash === 'beforeExecute') return
    for (const action of next.actions) {
      this.#check(action, seen)
      this.#execute(action)
      if (this.#crash === 'afterFork' && action.do === 'launch') return
      if (!this.vm || action.do === 'addFinalizer') return
    }
  }

  #forget(): void {
    this.#crash = undefined
    this.#disposed = false
    this.#stopSeen = undefined
    this.#endSeen = undefined
    this.#tried.clear()
    this.#known = undefined
  }

  #respec({ disks, memory }: Pick<Extract<Fault, { kind: 'spec' }>, 'disks' | 'memory'>): void {
    if (!this.vm) return
    const spec = vmSpec.parse({ ...this.vm.spec, disks, memory })
    const generation = (this.vm.metadata.generation ?? 0) + 1
    this.vm = { ...this.vm, spec, metadata: { ...this.vm.metadata, generation } }
    this.#tried.clear()
  }

  #request(action: VmAction): void {
    if (!this.vm?.status || this.vm.status.request) return
    const request = { action, id: `r-${this.#nextId++}`, at: '2026-01-01T00:00:00Z' }
    this.vm = { ...this.vm, status: { ...this.vm.status, request } }
  }

  #observe(vm: VirtualMachine): Observed {
    const stop = vm.status?.stop
    if (!stop) this.#stopSeen = undefined
    else if (this.#stopSeen?.at !== stop.at) this.#stopSeen = { at: stop.at, since: this.now }
    const { lastExit, process } = vm.status ?? {}
    if (!lastExit || lastExit.launchId !== process?.launchId) this.#endSeen = undefined
    else if (this.#endSeen?.at !== lastExit.at) this.#endSeen = { at: lastExit.at, since: this.now }
    return {
      bootId: this.bootId,
      hostName: 'host-a',
      hostLabels: {},
      tenure: { state: 'single' },
      localDisks: [],
      process: this.#process(vm),
      heard: [],
      live: Object.fromEntries(
        [...this.#tried].map(([key, { tries, at, error }]) => {
          const last = error === undefined ? { done: true } : { done: false, error }
          return [key, { tries, retryInMs: Math.max(0, at - this.now), ...last }]
        }),
      ),
      launching: false,
      disks: vm.spec.disks.map((disk) => this.#look(disk.name, bytesOf(disk.size ?? 0))),
      diskRetryInMs: 0,
      stopElapsedMs: this.#stopSeen ? this.now - this.#stopSeen.since : 0,
      endedElapsedMs: this.#endSeen ? this.now - this.#endSeen.since : 0,
      specHash: 'same',
      disposed: this.#disposed,
    }
  }

  #look(name: string, wants: number): DiskState {
    const [has, path] = [this.files.get(name), `/disks/${name}.qcow2`]
    if (has === undefined) return { name, state: 'absent' }
    const size = formatQuantity(has)
    if (has > wants) return { name, path, size, state: 'failed', message: 'would shrink' }
    return { name, path, size, state: has < wants ? 'absent' : 'ready' }
  }

  /** What an agent asks where something may be changed. */
  #ask(vm: VirtualMachine, qemu: WorldQemu) {
    const { adding, leaving } = qemu.pending
    const changing = adding.length + leaving.length > 0 || needsFacts(qemu.record, vm.spec)
    if (vm.status?.stop || !changing) return {}
    return { facts: qemu.facts() }
  }

  #process(vm: VirtualMachine): ProcessFact {
    if (this.blind) return { state: 'unknown', why: '/proc is unreadable' }
    if (this.qemus.length > 1) return { state: 'duplicate', pids: this.qemus.map((q) => q.pid) }
    const [qemu] = this.qemus
    if (!qemu) return { state: 'absent' }
    if (this.#known !== qemu) {
      this.#known = qemu
      this.#seenAt = this.now
    }
    const { pid, startTime, launchId, stopped } = qemu
    const silent = stopped || this.muted
    return {
      state: 'alive',
      identity: { pid, startTime, bootId: this.bootId },
      launchId,
      stopped,
      record: recordOf(qemu),
      ...(silent ? {} : this.#ask(vm, qemu)),
      machine: silent
        ? { state: 'unreachable', why: 'timeout', message: 'no answer' }
        : { state: 'answered', status: qemu.state, running: qemu.state === 'running' },
      seenForMs: this.now - this.#seenAt,
      silentForMs: silent ? this.now - this.#seenAt : 0,
    }
  }

  #check(action: Action, seen: Observed): void {
    this.#checkLive(action, seen)
    const proven = seen.process.state === 'absent' || seen.process.state === 'alive'
    const harmless = action.do === 'addFinalizer' || action.do === 'prepareDisks'
    if (!proven && !harmless) throw new SafetyViolation(`${action.do} on an unproven observation`)
    if (action.do === 'launch' && this.qemus.length > 0)
      throw new SafetyViolation('launch while a QEMU lives')
    if (action.do === 'dispose') {
      if (this.vm?.metadata.deletionTimestamp === undefined)
        throw new SafetyViolation('disks of a machine that is not deleted')
      if (this.qemus.length > 0) throw new SafetyViolation('disks of a machine that runs')
    }
    if (action.do === 'dropFinalizer' && (this.qemus.length > 0 || this.files.size > 0)) {
      throw new SafetyViolation('forgotten while something of it is left')
    }
    const status = this.vm?.status
    if (action.do === 'kill' || action.do === 'quit') {
      const ended = status?.lastExit?.launchId === status?.process?.launchId
      if (!status?.stop && !ended) throw new SafetyViolation(`${action.do} of a machine that should run`)
    }
    if (action.do === 'kill' && action.identity.pid !== this.qemus[0]?.pid)
      throw new SafetyViolation('kill of another process')
  }

  /** A running QEMU is only changed on its own answer, nobody else's files are touched, and only the truth is noted. */
  #checkLive(action: Action, { process }: Observed): void {
    const [qemu] = this.qemus
    if (action.do === 'prepareDisks') {
      for (const name of action.only ?? this.files.keys())
        if (qemu?.nodes.has(`file-${name}`)) throw new SafetyViolation(`${name} is open and is prepared`)
      if (qemu && !action.only) throw new SafetyViolation('every disk of a running machine is prepared')
    }
    if (action.do !== 'live' && action.do !== 'noteSpec') return
    const answered = process.state === 'alive' && process.machine.state === 'answered'
    if (!answered || process.launchId !== action.launchId)
      throw new SafetyViolation(`${action.do} on an unproven observation`)
    if (action.do === 'live' || !qemu) return
    for (const { name, size = 0 } of action.spec.disks) {
      const has = qemu.sizes.get(`disk-${name}`) ?? 0
      // One on its way in may not be there yet, one on its way out is until it is closed.
      if (action.pending.adding.includes(`disk-${name}`)) continue
      if (!qemu.nodes.has(`disk-${name}`) || has < bytesOf(size))
        throw new SafetyViolation(`${name} is noted and is not so`)
    }
    for (const id of qemu.devices)
      if (!action.spec.disks.some(({ name }) => id === `disk-${name}`))
        throw new SafetyViolation(`${id} is no longer noted`)
    if (action.spec.memory !== qemu.record.memory)
      throw new SafetyViolation('memory that it does not have is noted')
  }

  #live({ key, calls }: Extract<Action, { do: 'live' }>, qemu: WorldQemu): void {
    const tries = (this.#tried.get(key)?.tries ?? 0) + 1
    let error: string | undefined
    for (const call of calls) {
      const { adding, leaving } = qemu.pending
      if (call.command === 'device_add' && !adding.includes(call.args.id))
        throw new SafetyViolation(`${call.args.id} is added and not noted before`)
      if (call.command === 'device_del' && !leaving.includes(call.args.id))
        throw new SafetyViolation(`${call.args.id} is let go and not noted before`)
      error = qemu.obey(call, (name) => this.files.get(name))
      if (error !== undefined) break
      if (call.command === 'block_resize') this.files.set(call.args['node-name'].slice(5), call.args.size)
    }
    this.#tried.set(key, { tries, at: this.now + 1_000, ...(error !== undefined && { error }) })
  }

  #prepare(only: readonly string[] | undefined): void {
    for (const { name, size = 0 } of this.vm?.spec.disks ?? []) {
      const bytes = bytesOf(size)
      if ((!only || only.includes(name)) && (this.files.get(name) ?? 0) < bytes) this.files.set(name, bytes)
    }
  }

  #execute(action: Action): void {
    const [qemu] = this.qemus
    const hears = qemu !== undefined && !qemu.stopped && !this.muted
    switch (action.do) {
      case 'addFinalizer':
        if (this.vm) this.vm = { ...this.vm, metadata: { ...this.vm.metadata, finalizers: [vmFinalizer] } }
        return
      case 'dropFinalizer':
        this.vm = undefined
        return
      case 'prepareDisks':
        return this.#prepare(action.only)
      case 'launch':
        if (this.vm) this.qemus.push(new WorldQemu(this.#nextPid++, this.now, action.launchId, this.vm.spec))
        return
      case 'live':
        if (hears) this.#live(action, qemu)
        return
      case 'noteSpec':
        if (qemu?.launchId !== action.launchId) return
        qemu.record = action.spec
        qemu.pending = action.pending
        return
      case 'resume':
        if (hears) qemu.state = 'running'
        return
      case 'pause':
        if (hears && qemu.state === 'running') qemu.state = 'paused'
        return
      case 'powerdown':
        if (hears && qemu.state === 'running' && !this.deaf) qemu.state = 'shutdown'
        return
      case 'quit':
        if (hears) this.qemus.length = 0
        return
      case 'kill':
        this.qemus.length = 0
        return
      case 'dispose':
        this.files.clear()
        this.#disposed = true
        return
      case 'reset':
        return
    }
  }
}
