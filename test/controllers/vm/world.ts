import type { Action, Observed, Plan, PlanEnv, ProcessFact } from '../../../src/controllers/vm/types.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import { type RunStrategy, VirtualMachine, type VmAction, vmFinalizer } from '../../../src/resources/vm.ts'

type Planner = (vm: VirtualMachine, seen: Observed, env: PlanEnv) => Plan

interface Qemu {
  readonly pid: number
  readonly startTime: number
  readonly launchId: string
  state: RunState
  stopped: boolean
}

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

export class SafetyViolation extends Error {}

const uid = '11111111-1111-4111-8111-111111111111'

/** One machine on one host, with virtual time and a process table; checks the safety rules at every step. */
export class World {
  vm: VirtualMachine | undefined
  readonly qemus: Qemu[] = []
  disks: 'absent' | 'ready' | 'removed' = 'absent'
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
  #known: Qemu | undefined
  readonly #plan: Planner

  constructor(plan: Planner, strategy: RunStrategy) {
    this.#plan = plan
    const disks = [{ name: 'root', size: '1Gi' }]
    const body = VirtualMachine.body.parse({
      spec: { runStrategy: strategy, disks, terminationGracePeriodSeconds: 10 },
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

  /** Ends all faults that hold on. */
  heal(): void {
    this.muted = false
    this.blind = false
    this.deaf = false
    this.#crash = undefined
    for (const qemu of this.qemus) qemu.stopped = false
  }

  pass(): void {
    if (!this.vm) return
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
    this.#known = undefined
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
    const state = this.disks === 'ready' ? 'ready' : 'absent'
    return {
      bootId: this.bootId,
      hostName: 'host-a',
      hostLabels: {},
      process: this.#process(),
      heard: [],
      live: {},
      launching: false,
      disks: [{ name: 'root', state, ...(state === 'ready' && { path: '/disks/root.qcow2' }) }],
      diskRetryInMs: 0,
      stopElapsedMs: this.#stopSeen ? this.now - this.#stopSeen.since : 0,
      endedElapsedMs: this.#endSeen ? this.now - this.#endSeen.since : 0,
      specHash: 'same',
      disposed: this.#disposed,
    }
  }

  #process(): ProcessFact {
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
      machine: silent
        ? { state: 'unreachable', why: 'timeout', message: 'no answer' }
        : { state: 'answered', status: qemu.state, running: qemu.state === 'running' },
      seenForMs: this.now - this.#seenAt,
      silentForMs: silent ? this.now - this.#seenAt : 0,
    }
  }

  #check(action: Action, seen: Observed): void {
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
    if (action.do === 'dropFinalizer' && (this.qemus.length > 0 || this.disks === 'ready')) {
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
        this.disks = 'ready'
        return
      case 'launch':
        this.qemus.push({
          pid: this.#nextPid++,
          startTime: this.now,
          launchId: action.launchId,
          state: 'prelaunch',
          stopped: false,
        })
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
        this.disks = 'removed'
        this.#disposed = true
        return
      case 'reset':
        return
    }
  }
}
