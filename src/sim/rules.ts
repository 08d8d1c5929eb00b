import { FenceEvidence } from '../resources/fence-evidence.ts'
import { leaderLease, systemNamespace } from '../resources/host-lease.ts'
import { Lease } from '../resources/kinds.ts'
import { same } from '../resources/parse.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { defaultTerms } from '../runtime/lease.ts'
import type { KvEvent } from '../store/kv.ts'
import { keyFor, prefixFor } from '../store/object-keys.ts'
import type { SimProcess } from './clock.ts'
import type { Ender, SimHost } from './host.ts'
import type { SimQemu } from './qemu.ts'
import type { World } from './world.ts'

/** The rules that hold at every moment of a world, by name. */
export const ruleNames = [
  'OneGuest',
  'ManualIsLeftAlone',
  'KillOnlyWhatIsIdentified',
  'EvidenceBeforeFailover',
  'NoStartAfterFence',
  'SpecIsTheUsers',
  'DisksAreMadeOnce',
  'Converges',
] as const
export type RuleName = (typeof ruleNames)[number]

/** A safety rule that did not hold. */
export class Violation extends Error {
  readonly rule: RuleName
  /** When, ms of the world. */
  readonly at: number

  constructor(rule: RuleName, message: string, at: number) {
    super(`${rule}: ${message}`)
    this.name = 'Violation'
    this.rule = rule
    this.at = at
  }
}

/** A host that was fenced while it stood still may take this long to stop its guests when it goes on, ms (ADR 7). */
const resumeGraceMs = 100
/**
 * The shortest stand-still in which a host may be fenced and not notice, ms: one that had lost the store before stands
 * still from right before its guard would act until its lease was taken. Clocks drift by 1 % at most.
 */
const mayBeFencedMs = 0.99 * defaultTerms.durationMs - 1.01 * defaultTerms.deadlineMs

const leaderKey = keyFor(Lease, { namespace: systemNamespace, name: leaderLease })
const vmPrefix = prefixFor(VirtualMachine)
const evidencePrefix = prefixFor(FenceEvidence)

interface Live {
  readonly host: SimHost
  readonly qemu: SimQemu
  /** When it was started, ms. */
  readonly at: number
}

interface Fence {
  readonly spec: FenceEvidence['spec']
  /** When it was stored, ms. */
  readonly at: number
}

const failsOver = ({ record }: SimQemu) => record.manifest.spec.recovery.onHostLoss === 'Failover'

/** Looks at the true state of a world, not at what anybody in it believes. */
export class Rules {
  readonly #world: World
  #violation: Violation | undefined
  /** Every QEMU that lives, by uid. */
  readonly #live = new Map<string, Set<Live>>()
  /** The machines as they stand in the store, by key and by uid. */
  readonly vms = new Map<string, VirtualMachine>()
  readonly #byUid = new Map<string, string>()
  readonly #evidence: Fence[] = []
  /** Who made a disk that only one host has, by uid and disk. */
  readonly #makers = new Map<string, string>()
  /** The host that leads, by the store. */
  leader: string | undefined
  /** Writes by processes, for those who count. */
  writes = 0

  constructor(world: World) {
    this.#world = world
    world.store.onWrite((event, by) => this.#written(event, by))
  }

  /** @throws Violation where a rule did not hold since the last check */
  check(): void {
    if (this.#violation) throw this.#violation
  }

  broken(rule: RuleName, message: string): void {
    this.#violation ??= new Violation(rule, message, this.#world.timeline.now)
  }

  launched(host: SimHost, qemu: SimQemu): void {
    const all = this.#live.get(qemu.uid) ?? new Set()
    all.add({ host, qemu, at: this.#world.timeline.now })
    this.#live.set(qemu.uid, all)
  }

  guest(host: SimHost, qemu: SimQemu): void {
    if (!host.runs(qemu)) return
    this.#oneGuest(qemu)
    this.#noStartAfterFence(host, qemu)
  }

  /** Hosts on which a guest of that uid runs now. */
  runners(uid: string): readonly SimHost[] {
    return [...(this.#live.get(uid) ?? [])]
      .filter(({ host, qemu }) => host.runs(qemu))
      .map(({ host }) => host)
  }

  #oneGuest({ uid, name }: SimQemu): void {
    const running = this.runners(uid)
    if (running.length < 2) return
    const { timeline } = this.#world
    const graces = running.flatMap(({ resumed }) =>
      resumed && resumed.afterMs >= mayBeFencedMs ? [resumed.at + resumeGraceMs] : [],
    )
    const until = Math.max(...graces)
    if (graces.length === 0 || timeline.now > until) {
      const names = running.map((host) => host.name).join(' and ')
      return this.broken('OneGuest', `${name} runs ${running.length} times, on ${names}`)
    }
    const [one] = this.#live.get(uid) ?? []
    timeline.at(until + 1, () => one && this.#oneGuest(one.qemu))
  }

  #noStartAfterFence(host: SimHost, qemu: SimQemu): void {
    const { epoch, launchId } = qemu.record
    const later = this.#evidence.find(({ spec }) => spec.host === host.name && spec.epoch > epoch)
    const vm = this.vmOf(qemu.uid)
    const placed = vm?.status?.placementEpoch ?? 0
    // Taken up again under the new epoch it is its own.
    if (!later || !vm || host.resumed || (vm.status?.hostName === host.name && placed >= later.spec.epoch))
      return
    // No start: it ran when its host was fenced, nobody takes it elsewhere, and it may stop and go on.
    if (!failsOver(qemu) && vm.status?.hostName === host.name && this.#startedAt(qemu) < later.at) return
    this.broken(
      'NoStartAfterFence',
      `${qemu.name} (launch ${launchId}, epoch ${epoch}) runs on ${host.name}, fenced as of epoch ${later.spec.epoch}`,
    )
  }

  #startedAt(qemu: SimQemu): number {
    const live = [...(this.#live.get(qemu.uid) ?? [])].find((one) => one.qemu === qemu)
    return live?.at ?? Number.POSITIVE_INFINITY
  }

  ended(host: SimHost, qemu: SimQemu, by: Ender): void {
    const all = this.#live.get(qemu.uid)
    for (const one of all ?? []) if (one.qemu === qemu) all?.delete(one)
    if (by !== 'agent' && by !== 'guard') return
    if (qemu.foreign)
      return this.broken('KillOnlyWhatIsIdentified', `${by} of ${host.name} killed a QEMU that is not ours`)
    this.#manualIsLeftAlone(host, qemu, by)
  }

  #manualIsLeftAlone(host: SimHost, qemu: SimQemu, by: 'agent' | 'guard'): void {
    const vm = this.vmOf(qemu.uid)
    if (failsOver(qemu)) return
    if (by === 'guard')
      return this.broken(
        'ManualIsLeftAlone',
        `the guard of ${host.name} killed ${qemu.name}, which is Manual`,
      )
    const { status, metadata, spec } = vm ?? {}
    if (!vm || !status || metadata?.deletionTimestamp || status.hostName !== host.name) return
    const over = status.lastExit?.launchId === qemu.record.launchId
    if (status.stop || over || spec?.runStrategy === 'Halted' || status.power?.desired !== 'Up') return
    this.broken('ManualIsLeftAlone', `the agent of ${host.name} killed ${qemu.name}, which should run`)
  }

  /** The host that a machine is placed on. @param key namespace/name */
  hostOf(key: string): string | undefined {
    return this.vms.get(`${vmPrefix}${key}`)?.status?.hostName
  }

  diskMade(host: SimHost, uid: string, name: string, shared: boolean): void {
    const [key, where] = [`${uid}/${name}`, shared ? 'the shared pool' : host.name]
    const before = this.#makers.get(key)
    if (before === undefined) this.#makers.set(key, where)
    else if (before !== where)
      this.broken('DisksAreMadeOnce', `disk ${key} of ${before} was made anew, empty, in ${where}`)
  }

  disksRemoved(uid: string): void {
    for (const key of this.#makers.keys()) if (key.startsWith(`${uid}/`)) this.#makers.delete(key)
  }

  vmOf(uid: string): VirtualMachine | undefined {
    return this.vms.get(this.#byUid.get(uid) ?? '')
  }

  #written(event: KvEvent, by: SimProcess | undefined): void {
    if (by) this.writes += 1
    const { reader } = this.#world
    if (event.key.startsWith(evidencePrefix) && event.type === 'put')
      this.#evidence.push({ spec: reader.stored<FenceEvidence>(event).spec, at: this.#world.timeline.now })
    if (event.key === leaderKey && event.type === 'put')
      this.leader = reader.stored<Lease>(event).spec.holderIdentity
    if (!event.key.startsWith(vmPrefix)) return
    const before = this.vms.get(event.key)
    const next = event.type === 'put' ? reader.stored<VirtualMachine>(event) : undefined
    if (next) {
      this.vms.set(event.key, next)
      this.#byUid.set(next.metadata.uid ?? '', event.key)
    } else this.vms.delete(event.key)
    if (!by || !before) return
    this.#specIsTheUsers(before, next, by)
    if (next) this.#evidenceBeforeFailover(before, next, by)
  }

  #specIsTheUsers(before: VirtualMachine, next: VirtualMachine | undefined, by: SimProcess): void {
    const { name, deletionTimestamp } = before.metadata
    if (!next && deletionTimestamp === undefined)
      return this.broken('SpecIsTheUsers', `${by.name} deleted ${name}, which nobody asked for`)
    if (next && !same(before.spec, next.spec))
      this.broken('SpecIsTheUsers', `${by.name} changed the spec of ${name}`)
  }

  #evidenceBeforeFailover(before: VirtualMachine, next: VirtualMachine, by: SimProcess): void {
    const { hostName, process, launch, placementEpoch = 0, onHostLoss } = before.status ?? {}
    if (hostName === undefined || next.status?.hostName === hostName || (!process && !launch)) return
    const { name, uid = '' } = before.metadata
    const found = this.#evidence.filter(({ spec }) => spec.host === hostName && spec.epoch > placementEpoch)
    const whole = found.some(({ spec }) => spec.proof === 'Command' || spec.proof === 'Operator')
    const wished = before.spec.recovery?.onHostLoss
    if (whole && wished === 'Failover') return
    if (found.length > 0 && onHostLoss === 'Failover') return
    // Given up by its own host, as a drain asks, maybe after it was fenced and is back: then nothing of it may live there.
    const left = [...(this.#live.get(uid) ?? [])].some(({ host }) => host.name === hostName)
    if (by.name === `agent of ${hostName}` && !left) return
    this.broken(
      'EvidenceBeforeFailover',
      `${by.name} took ${name} from ${hostName} (epoch ${placementEpoch}, ${onHostLoss ?? 'no onHostLoss'}) with ${found.length} pieces of evidence`,
    )
  }

  /** Why the world has not come to rest where it should: a machine that should run and does not, or a status that is wrong. */
  unsettled(): string | undefined {
    for (const vm of this.vms.values()) {
      const why = this.#unsettled(vm)
      if (why !== undefined) return `${vm.metadata.namespace}/${vm.metadata.name} ${why}`
    }
    return undefined
  }

  #unsettled(vm: VirtualMachine): string | undefined {
    const { phase, hostName, reason, message } = vm.status ?? {}
    const running = this.runners(vm.metadata.uid ?? '')
    // A fence command has switched its host off, and nobody is there to switch it on: it waits, and says so.
    const off = this.#world.hosts.get(hostName ?? '')?.on === false
    if (vm.metadata.deletionTimestamp !== undefined) return off ? undefined : 'is still being deleted'
    const said = `${phase ?? 'no phase'} (${reason ?? 'no reason'}${message ? `: ${message}` : ''}) on ${hostName ?? 'no host'}`
    if (phase === 'Running' && (running.length !== 1 || running[0]?.name !== hostName))
      return `says ${said} and runs on ${running.map(({ name }) => name).join(', ') || 'no host'}`
    const waits = phase === 'Unknown' && (reason === 'HostLost' || reason === 'StorageLost')
    if (waits && off) return undefined
    const wanted = vm.spec.runStrategy ?? 'Always'
    if (wanted === 'Always' && phase !== 'Running') return `should run and is ${said}`
    if (wanted === 'Halted' && phase !== 'Stopped') return `should be down and is ${said}`
    return undefined
  }
}
