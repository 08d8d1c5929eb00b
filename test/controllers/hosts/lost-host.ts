import type { Clock } from '../../../src/lib/clock.ts'
import { sleep } from '../../../src/lib/clock.ts'
import {
  type HostLeaseFacts,
  hostLeaseName,
  leaseAnnotations,
  systemNamespace,
} from '../../../src/resources/host-lease.ts'
import { Lease } from '../../../src/resources/kinds.ts'
import { VirtualMachine, type VmStatus } from '../../../src/resources/vm.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'
import { facts } from './fixture.ts'

const deadlineMs = 6_000
const stopMs = 2_000

/**
 * Host a as the rules of the cluster have it, no better than they ask for: it holds on to its machines until the last
 * moment that it announced, and takes them up again as soon as it may. What really runs is `running`.
 */
export class RuleAbidingHost {
  readonly running = new Set<string>()
  /** By machine: what its launch.json says. */
  readonly promised = new Map<string, 'Failover' | 'Manual'>()
  /** Machines that are to be failover-enabled from now on, by uid. */
  readonly wanted = new Map<string, 'Failover' | 'Manual'>()
  readonly #objects: ObjectStore
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #selfFence: HostLeaseFacts['selfFence']
  /** When the last renewal that succeeded was sent. */
  #renewedAt = Number.NEGATIVE_INFINITY
  #epoch = 0
  /** Grows with each boot; what an earlier one still had under way ends there. */
  #boot = 0
  #on = false
  #launches = 0

  constructor(
    objects: ObjectStore,
    clock: Clock,
    signal: AbortSignal,
    selfFence: HostLeaseFacts['selfFence'],
  ) {
    this.#objects = objects
    this.#clock = clock
    this.#signal = signal
    this.#selfFence = selfFence
  }

  get on(): boolean {
    return this.#on
  }

  off(): void {
    this.#on = false
    this.#boot += 1
    this.running.clear()
    this.#renewedAt = Number.NEGATIVE_INFINITY
  }

  boot(): void {
    if (this.#on) return
    this.#on = true
    this.#boot += 1
    void this.#guard(this.#boot)
    void this.#agent(this.#boot)
  }

  /** Called whenever time has passed: the guard has stopped by now what it promised to stop. */
  tick(): void {
    if (this.#clock.elapsed() - this.#renewedAt < deadlineMs + stopMs) return
    for (const uid of [...this.running]) if (this.promised.get(uid) === 'Failover') this.running.delete(uid)
  }

  #holds(): boolean {
    return this.#clock.elapsed() - this.#renewedAt < deadlineMs
  }

  #lives(boot: number): boolean {
    return this.#on && this.#boot === boot && !this.#signal.aborted
  }

  async #guard(boot: number): Promise<void> {
    while (this.#lives(boot)) {
      const stopping =
        !this.#holds() && [...this.running].some((uid) => this.promised.get(uid) === 'Failover')
      if (!stopping) await this.#renew(boot).catch(() => {})
      await sleep(this.#clock, 3_000, this.#signal).catch(() => {})
    }
  }

  async #renew(boot: number): Promise<void> {
    const ref = { namespace: systemNamespace, name: hostLeaseName('a') }
    const lease = await this.#objects.get(Lease, ref)
    if (!this.#lives(boot)) return
    const annotations = leaseAnnotations(facts({ selfFence: this.#selfFence, deadlineMs, stopMs }))
    const sentAt = this.#clock.elapsed()
    const spec = { ...lease.spec, holderIdentity: 'a', renewTime: new Date(this.#clock.now()).toISOString() }
    const written = await this.#objects.update(Lease, {
      ...lease,
      metadata: { ...lease.metadata, annotations },
      spec,
    })
    if (!this.#lives(boot)) return
    this.#renewedAt = Math.max(this.#renewedAt, sentAt)
    this.#epoch = written.spec.leaseTransitions ?? 0
  }

  async #agent(boot: number): Promise<void> {
    while (this.#lives(boot)) {
      const machines = await this.#objects.list(VirtualMachine).catch(() => undefined)
      for (const vm of machines?.items ?? [])
        if (this.#lives(boot)) await this.#look(vm, boot).catch(() => {})
      await sleep(this.#clock, 500, this.#signal).catch(() => {})
    }
  }

  async #look(vm: VirtualMachine, boot: number): Promise<void> {
    const { uid = '' } = vm.metadata
    const { status } = vm
    if (status?.hostName !== 'a') return void this.running.delete(uid)
    if (!this.#holds()) return
    if (status.placementEpoch !== this.#epoch)
      return this.#write(vm, { ...this.#seen(status, uid), placementEpoch: this.#epoch })
    const wanted = this.wanted.get(uid) ?? 'Failover'
    // It is promised before that is said, and said no longer before it ends.
    if (wanted === 'Failover') this.promised.set(uid, wanted)
    if (status.onHostLoss !== wanted) return this.#write(vm, { ...status, onHostLoss: wanted })
    this.promised.set(uid, wanted)
    if (this.running.has(uid)) return
    const epoch = this.#epoch
    const launch = { id: `l-${this.#launches++}`, at: '2026-01-01T00:00:00Z', bootId: 'boot' }
    const { process: _, ...rest } = status
    await this.#write(vm, { ...rest, launch })
    if (this.#lives(boot) && this.#holds() && this.#epoch === epoch) this.running.add(uid)
  }

  /** The status without what is proven to be gone. */
  #seen(status: VmStatus, uid: string): VmStatus {
    if (this.running.has(uid)) return status
    const { launch: _l, process: _p, ...rest } = status
    return rest
  }

  async #write(vm: VirtualMachine, status: VmStatus): Promise<void> {
    await this.#objects.updateStatus(VirtualMachine, { ...vm, status })
  }
}
