import { macOf } from '../../host/qemu-networks.ts'
import { rfc3339 } from '../../lib/clock.ts'
import type { ConditionFact } from '../../resources/conditions.ts'
import { setConditions } from '../../resources/conditions.ts'
import { type LossMark, lossMark, withAgentsWord } from '../../resources/host-loss.ts'
import { type Phase, type VirtualMachine, type VmStatus, vmStatusOf } from '../../resources/vm.ts'
import { type LeaseWait, leaseWait } from './tenure.ts'
import type { Action, Happening, Observed, Plan, PlanEnv } from './types.ts'

/** The network cards with their addresses: as launched while a process lives, as declared otherwise. */
function networksOf(vm: VirtualMachine, { process }: Observed): VmStatus['networks'] {
  const launched = process.state === 'alive' ? process.record?.manifest.spec : undefined
  const uid = vm.metadata.uid ?? ''
  const { networks } = launched ?? vm.spec
  return networks.map(({ name, mac }) => ({ name, mac: mac ?? macOf(uid, name) }))
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Conditions of machines that this controller owns, in the order they are shown; those of others are kept. */
const ownConditions = ['Ready', 'Paused', 'DisksReady', 'Synchronized', 'RestartRequired', 'Movable']

/** A plan while it is being made: starts as the last status, becomes the next. Never leaves `plan`. */
export class Draft {
  readonly vm: VirtualMachine
  readonly seen: Observed
  readonly env: PlanEnv
  readonly status: Mutable<VmStatus>
  readonly actions: Action[] = []
  readonly happenings: Happening[] = []
  readonly #conditions = new Map<string, ConditionFact>()
  #recheckMs: number | undefined

  constructor(vm: VirtualMachine, seen: Observed, env: PlanEnv) {
    this.vm = vm
    this.seen = seen
    this.env = env
    this.status = vmStatusOf(vm)
  }

  get at(): string {
    return rfc3339(this.env.now)
  }

  get deleting(): boolean {
    return this.vm.metadata.deletionTimestamp !== undefined
  }

  /** Why no guest may be started or resumed now; undefined where it may. */
  get leaseWait(): LeaseWait | undefined {
    return leaseWait(this.seen.tenure, this.vm.status?.placementEpoch)
  }

  /**
   * What the leader has said of the machine as its host is lost, while that is so. That word stands, and what is seen here
   * is added to it: else the two would take turns.
   */
  get mark(): LossMark | undefined {
    return this.seen.tenure.state === 'lost' ? lossMark(this.vm.status) : undefined
  }

  /** Sets the phase with its reason; Ready is true only when Running. */
  phase(phase: Phase, reason: string, message = ''): void {
    const shown = this.deleting && phase !== 'Unknown' ? 'Terminating' : phase
    const { mark } = this
    if (!mark) return this.#phase(phase, shown, reason, message)
    this.#phase('Unknown', 'Unknown', mark.reason, withAgentsWord(mark, { phase: shown, reason, message }))
  }

  #phase(phase: Phase, shown: Phase, reason: string, message: string): void {
    this.status.phase = shown
    this.status.reason = reason
    if (message) this.status.message = message
    else delete this.status.message
    const ready =
      shown === 'Running' ? 'True' : phase === 'Unknown' || phase === 'Unresponsive' ? 'Unknown' : 'False'
    this.condition('Ready', ready, reason, message)
  }

  condition(type: string, status: ConditionFact['status'], reason: string, message = ''): void {
    this.#conditions.set(type, { type, status, reason, message })
  }

  /** Leaves phase and conditions as they were recorded: what was seen does not say anything yet. */
  hold(): void {
    for (const fact of this.vm.status?.conditions ?? [])
      if (!this.#conditions.has(fact.type)) this.#conditions.set(fact.type, fact)
  }

  tell(type: Happening['type'], reason: string, message: string): void {
    this.happenings.push({ type, reason, message })
  }

  /** Tells of how the machine stands, where that is new by its status. Not while the leader's word hides what it was. */
  announce(type: Happening['type'], reason: string, message: string): void {
    if (!this.mark) this.tell(type, reason, message)
  }

  act(action: Action): void {
    this.actions.push(action)
  }

  /** Says that what comes next waits for the host's lease, and looks again. */
  waitForLease(phase: Phase, { why, recheckMs }: LeaseWait): void {
    this.phase(phase, 'LeaseLost', why)
    this.recheckIn(recheckMs)
  }

  recheckIn(ms: number): void {
    this.#recheckMs = Math.min(this.#recheckMs ?? Number.POSITIVE_INFINITY, Math.max(0, ms))
  }

  done(): Plan {
    const generation = this.vm.metadata.generation ?? 0
    this.status.observedGeneration = generation
    this.status.networks = networksOf(this.vm, this.seen)
    const before = this.vm.status?.conditions
    const facts = ownConditions.flatMap((type) => this.#conditions.get(type) ?? [])
    const others = before?.filter(({ type }) => !ownConditions.includes(type)) ?? []
    this.status.conditions = [...setConditions(before, facts, this.at, generation), ...others]
    return {
      status: this.status,
      actions: this.actions,
      happenings: this.happenings,
      ...(this.#recheckMs !== undefined && { recheckMs: this.#recheckMs }),
    }
  }
}
