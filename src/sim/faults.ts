import { claimed } from '../cli/host-fence.ts'
import { FenceEvidence } from '../resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import { Lease } from '../resources/kinds.ts'
import { VirtualMachine, vmStatusOf } from '../resources/vm.ts'
import type { SimHost } from './host.ts'
import { type Cut, storeNode } from './net.ts'
import type { SimQemu } from './qemu.ts'
import type { StoreCall } from './store.ts'
import type { World } from './world.ts'

type Roles = 'agent' | 'guard'

/**
 * What may go wrong, as data. Whatever lasts says for how many ms; without it it lasts. A host is a name, `@leader` for
 * the one that leads, or `@` and the name of a machine for the one that has it, at that time.
 */
export type Fault =
  /** A process dies; a supervisor starts the agent again, and the agent its guard. */
  | { readonly kind: 'kill'; readonly host: string; readonly what: Roles }
  /** SIGSTOP, then SIGCONT. */
  | { readonly kind: 'stop'; readonly host: string; readonly what: Roles; readonly forMs?: number }
  | { readonly kind: 'cont'; readonly host: string; readonly what: Roles }
  /** Everything on a host stands still, as under a paused hypervisor. */
  | { readonly kind: 'freeze'; readonly host: string; readonly forMs?: number }
  | { readonly kind: 'power'; readonly host: string; readonly forMs?: number }
  | { readonly kind: 'boot'; readonly host: string }
  /** Messages between two nodes are lost or refused, one way or both; `*` is every other node. */
  | {
      readonly kind: 'cut'
      readonly from: string
      readonly to: string
      readonly both?: boolean
      readonly how?: Cut
      readonly forMs?: number
    }
  /** All links are whole again. */
  | { readonly kind: 'heal' }
  /** Messages between a host and the store take up to `ms` longer, and overtake one another. */
  | { readonly kind: 'slow'; readonly host: string; readonly ms: number; readonly forMs?: number }
  | { readonly kind: 'store'; readonly how: 'silent' | 'refuses' | 'yes'; readonly forMs?: number }
  | { readonly kind: 'watches' }
  /** The wall clock of a host jumps. */
  | { readonly kind: 'jump'; readonly host: string; readonly ms: number }
  /** What becomes of the QEMU of a machine. */
  | {
      readonly kind: 'qemu'
      readonly vm: string
      /**
       * `mute` does not answer its monitor, `deaf` takes no notice of the power button; one that can `hang` is in
       * uninterruptible sleep, where no signal reaches it; a `zombie` has ended, and nobody is told; the process of an
       * `impostor` is gone, and its pid given to a QEMU of somebody else.
       */
      readonly does:
        | 'die'
        | 'stop'
        | 'cont'
        | 'mute'
        | 'deaf'
        | 'impostor'
        | 'hang'
        | 'zombie'
        | 'shutdown'
        | 'guest-panicked'
        | 'io-error'
      readonly forMs?: number
    }
  /** A person says that a host is off, as with `host fence --confirm-off`. */
  | { readonly kind: 'confirm'; readonly host: string }
  /** What a person does. */
  | {
      readonly kind: 'user'
      readonly vm: string
      readonly does: 'start' | 'stop' | 'delete' | 'Restart' | 'Move'
    }

/** When: at a time, or at the nth call of a process to the store that fits. */
export type When =
  | { readonly at: number }
  | {
      readonly after: number
      readonly by: string
      readonly op: StoreCall['op']
      readonly key: string
      readonly phase: 'send' | 'answer'
      readonly nth: number
    }

export type Timed = When & { readonly fault: Fault }

/** How long a supervisor waits before it starts an agent again, ms. */
const superviseMs = 1_500
/** A guard and its agent watch over each other: both out of order at once is more than they promise to bear (ADR 7). */
const recoveryMs = 8_000

/** Puts faults into a world. */
export class Faults {
  readonly #world: World
  readonly #ailing = new Map<string, { readonly what: Roles; readonly until: number }>()
  /** What takes back faults that last for a time. */
  readonly #ends = new Set<() => void>()
  /** Makes a fault that is more than the design promises to bear do nothing. */
  bearable = true

  constructor(world: World) {
    this.#world = world
  }

  /** Sets a list of faults going, with times from now on; what the list before still waits for is forgotten. */
  schedule(faults: readonly Timed[]): void {
    const { timeline, store } = this.#world
    const from = timeline.now
    const waiting: { timed: Extract<Timed, { after: number }>; seen: number }[] = []
    for (const timed of faults) {
      if ('at' in timed) timeline.after(timed.at, () => this.apply(timed.fault))
      else waiting.push({ timed, seen: 0 })
    }
    store.intercept = (call, phase) => {
      for (const one of [...waiting]) {
        const { timed } = one
        if (timeline.now - from < timed.after || phase !== timed.phase || call.op !== timed.op) continue
        if (call.from !== this.#hostOf(timed.by) || !call.key.includes(timed.key)) continue
        one.seen += 1
        if (one.seen !== timed.nth) continue
        waiting.splice(waiting.indexOf(one), 1)
        this.apply(timed.fault)
      }
    }
  }

  apply(given: Fault): void {
    const fault = this.#named(given)
    this.#world.tell(`fault: ${words(fault)}`)
    switch (fault.kind) {
      case 'kill':
      case 'stop':
      case 'cont':
        return this.#process(fault)
      case 'freeze':
      case 'power':
      case 'boot':
      case 'jump':
        return this.#host(fault)
      case 'cut':
      case 'heal':
      case 'slow':
      case 'store':
      case 'watches':
        return this.#network(fault)
      case 'qemu':
        return this.#qemu(fault)
      case 'confirm':
      case 'user':
        void (fault.kind === 'user' ? this.#user(fault) : this.#confirm(fault)).catch((error: unknown) =>
          this.#world.tell(`the person is told: ${(error as Error).message}`),
        )
        return
    }
  }

  /** The fault with the names of hosts that are meant. */
  #named<F extends Fault>(fault: F): F {
    const members = Object.entries(fault).map(([key, value]) =>
      typeof value === 'string' && value.startsWith('@') ? [key, this.#hostOf(value)] : [key, value],
    )
    return Object.fromEntries(members) as F
  }

  #hostOf(name: string): string {
    if (!name.startsWith('@')) return name
    const { rules, hosts } = this.#world
    const found = name === '@leader' ? rules.leader : rules.hostOf(`default/${name.slice(1)}`)
    return found ?? [...hosts.keys()][0] ?? ''
  }

  /** Ends everything that was done and lasts. */
  heal(): void {
    const { hosts, net, store, parts } = this.#world
    this.#world.tell('all faults end')
    // What they would end later may have begun anew by then.
    for (const cancel of this.#ends) cancel()
    this.#ends.clear()
    net.healAll()
    store.setAvailable('yes')
    for (const host of hosts.values()) {
      this.#world.boot(host)
      host.pause(false)
      host.agent?.cont('signal')
      host.guard?.cont('signal')
      if (!host.agent?.alive) parts.agent(host, this.#world)
      for (const qemu of host.qemus.values()) {
        qemu.deaf = false
        qemu.mute = false
        if (qemu.stopped) host.freeze(qemu, false)
        host.hang(qemu, false)
      }
    }
  }

  #later(ms: number | undefined, run: () => void): void {
    if (ms !== undefined) this.#ends.add(this.#world.timeline.after(ms, run))
  }

  #process(fault: Extract<Fault, { kind: 'kill' | 'stop' | 'cont' }>): void {
    const host = this.#world.host(fault.host)
    const process = host[fault.what]
    if (!process?.alive) return
    if (fault.kind === 'cont') return process.cont('signal')
    if (this.#unbearable(host, fault.what, fault.kind === 'stop' ? (fault.forMs ?? 1e9) : superviseMs)) return
    if (fault.kind === 'stop') {
      process.stop('signal')
      return this.#later(fault.forMs, () => process.cont('signal'))
    }
    process.kill()
    if (fault.what === 'guard') return
    this.#later(superviseMs, () => {
      if (host.on && host.agent === process) this.#world.parts.agent(host, this.#world)
    })
  }

  #unbearable(host: SimHost, what: Roles, ms: number): boolean {
    const { timeline } = this.#world
    const ailing = this.#ailing.get(host.name)
    if (this.bearable && ailing && ailing.what !== what && timeline.now < ailing.until) {
      this.#world.tell('… does nothing: guard and agent would both be out of order')
      return true
    }
    const until = Math.max(timeline.now + ms + recoveryMs, ailing?.what === what ? ailing.until : 0)
    this.#ailing.set(host.name, { what, until })
    return false
  }

  #host(fault: Extract<Fault, { kind: 'freeze' | 'power' | 'boot' | 'jump' }>): void {
    const host = this.#world.host(fault.host)
    if (fault.kind === 'boot') return this.#world.boot(host)
    if (fault.kind === 'jump') {
      host.time.epoch += fault.ms
      return
    }
    if (!host.on) return
    if (fault.kind === 'freeze') {
      host.pause(true)
      return this.#later(fault.forMs, () => host.pause(false))
    }
    host.powerOff()
    this.#later(fault.forMs, () => this.#world.boot(host))
  }

  #nodes(name: string, except: string): string[] {
    if (name !== '*') return [name]
    return [storeNode, ...this.#world.hosts.keys()].filter((node) => node !== except)
  }

  #network(fault: Extract<Fault, { kind: 'cut' | 'heal' | 'slow' | 'store' | 'watches' }>): void {
    const { net, store } = this.#world
    if (fault.kind === 'heal') return net.healAll()
    if (fault.kind === 'watches') return store.breakWatches()
    if (fault.kind === 'store') {
      store.setAvailable(fault.how)
      return this.#later(fault.forMs, () => store.setAvailable('yes'))
    }
    const links: (readonly [string, string])[] = []
    if (fault.kind === 'slow') links.push([fault.host, storeNode], [storeNode, fault.host])
    else
      for (const from of this.#nodes(fault.from, fault.to))
        for (const to of this.#nodes(fault.to, from)) {
          links.push([from, to])
          if (fault.both) links.push([to, from])
        }
    for (const [from, to] of links) {
      if (fault.kind === 'slow') net.slow(from, to, fault.ms)
      else net.cut(from, to, fault.how ?? 'drop')
    }
    this.#later(fault.forMs, () => {
      for (const [from, to] of links) net.heal(from, to)
    })
  }

  #qemu(fault: Extract<Fault, { kind: 'qemu' }>): void {
    for (const host of this.#world.hosts.values())
      for (const qemu of [...host.qemus.values()].filter(({ name }) => name === `default/${fault.vm}`))
        this.#befall(host, qemu, fault)
  }

  #befall(host: SimHost, qemu: SimQemu, { does, forMs }: Extract<Fault, { kind: 'qemu' }>): void {
    switch (does) {
      case 'die':
        return host.end(qemu, 'outside')
      case 'zombie':
        return host.zombie(qemu)
      case 'impostor':
        return host.replace(qemu)
      case 'deaf':
        qemu.deaf = true
        return
      case 'mute':
        qemu.mute = true
        return this.#later(forMs, () => {
          qemu.mute = false
        })
      case 'hang':
        host.hang(qemu, true)
        return this.#later(forMs, () => host.hang(qemu, false))
      case 'stop':
        host.freeze(qemu, true)
        return this.#later(forMs, () => host.freeze(qemu, false))
      case 'cont':
        return host.freeze(qemu, false)
      default:
        if (host.runs(qemu)) host.setState(qemu, does)
    }
  }

  async #confirm({ host }: Extract<Fault, { kind: 'confirm' }>): Promise<void> {
    const { objects } = this.#world
    const ref = { namespace: systemNamespace, name: hostLeaseName(host) }
    const { metadata, spec } = await objects.get(Lease, ref)
    const said = { by: 'a person', reason: undefined, silentMs: 60_000, at: '2026-01-01T00:00:00Z' }
    const claim = claimed({ host, lease: { metadata, spec } as never, ...said })
    await objects.create(FenceEvidence, claim as unknown as FenceEvidence)
  }

  async #user({ vm: name, does }: Extract<Fault, { kind: 'user' }>): Promise<void> {
    const { objects } = this.#world
    const ref = { namespace: 'default', name }
    if (does === 'delete') return void (await objects.delete(VirtualMachine, ref))
    if (does === 'start' || does === 'stop')
      return setRunStrategy(objects, name, does === 'start' ? 'Always' : 'Halted')
    const vm = await objects.get(VirtualMachine, ref)
    const request = { action: does, id: `person-${this.#world.timeline.steps}`, at: '2026-01-01T00:00:00Z' }
    await objects.updateStatus(VirtualMachine, { ...vm, status: { ...vmStatusOf(vm), request } })
  }
}

/** What a person does who starts or stops a machine. */
export async function setRunStrategy(
  objects: World['objects'],
  name: string,
  runStrategy: 'Always' | 'Halted',
): Promise<void> {
  const vm = await objects.get(VirtualMachine, { namespace: 'default', name })
  await objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, runStrategy } })
}

/** A fault in a line. */
export function words(fault: Fault): string {
  return Object.entries(fault)
    .map(([key, value]) => (key === 'kind' ? String(value) : `${key}=${value}`))
    .join(' ')
}
