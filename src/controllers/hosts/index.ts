import { isDeepStrictEqual } from 'node:util'
import { rfc3339 } from '../../lib/clock.ts'
import { adviceOf } from '../../lib/errors.ts'
import { type ConditionFact, setConditions } from '../../resources/conditions.ts'
import type { FenceEvidence } from '../../resources/fence-evidence.ts'
import { Host, type StoragePool } from '../../resources/kinds.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { isReason } from '../../store/errors.ts'
import { happeningsOf, mergeConditions } from './conditions.ts'
import { type ExecuteDeps, execute } from './execute.ts'
import type { LostHosts } from './memory.ts'
import { planHosts } from './plan.ts'
import type { Watched } from './sight.ts'
import type { Action, HostPlan, World } from './types.ts'

/** Copies that may lag: they choose what to do; each step reads afresh what it relies on. */
export interface Copies {
  readonly hosts: () => readonly Host[]
  readonly machines: () => readonly VirtualMachine[]
  readonly pools: () => readonly StoragePool[]
  readonly evidence: () => readonly FenceEvidence[]
}

export interface HostsDeps extends ExecuteDeps {
  readonly copies: Copies
  readonly watched: () => Watched | undefined
  readonly memory: LostHosts
  readonly leader: World['leader']
  readonly brakePercent: number
  readonly suspectMs: number
}

/** After a step that leads on there is something new to do at once. */
const leadsOn: ReadonlySet<Action['do']> = new Set([
  'mark',
  'askVotes',
  'runCommand',
  'takeLease',
  'storeEvidence',
])

export function worldOf(deps: HostsDeps): World {
  const { copies, brakePercent, durationMs, suspectMs, leader } = deps
  return {
    watched: deps.watched(),
    ...{ hosts: copies.hosts(), machines: copies.machines(), pools: copies.pools() },
    evidence: copies.evidence(),
    tries: deps.memory.tries(deps.clock.elapsed()),
    ...{ leader, brakePercent, durationMs, suspectMs },
  }
}

/** The hosts for which something is to be recorded or done, by the copies. */
export function hostsToDo(deps: HostsDeps): readonly string[] {
  const hosts = new Map(deps.copies.hosts().map((host) => [host.metadata.name, host]))
  return [...planHosts(worldOf(deps), deps.clock.now())].flatMap(([name, plan]) => {
    const differs = !isRecorded(hosts.get(name), plan.conditions)
    return differs || plan.actions.length > 0 ? [name] : []
  })
}

function isRecorded(host: Host | undefined, facts: readonly ConditionFact[]): boolean {
  if (!host) return true
  const stored = host.status?.conditions ?? []
  return facts.every(({ type, status, reason, message }) =>
    stored.some(
      (one) => one.type === type && one.status === status && one.reason === reason && one.message === message,
    ),
  )
}

/**
 * One pass over one host: plan from the copies and the leases, record its conditions by compare-and-swap, take the next
 * step. A pass that fails is tried again with back-off, at most 30 s, for ever.
 */
export async function reconcileLostHost(
  host: string,
  deps: HostsDeps,
  signal: AbortSignal,
): Promise<Outcome> {
  const { clock, memory } = deps
  const plan = planHosts(worldOf(deps), clock.now()).get(host)
  if (!plan) return { next: 'done' }
  if (isBack(plan)) memory.forget(host)
  const [action] = plan.actions
  const lost = memory.of(host)
  try {
    await record(host, plan, deps)
    signal.throwIfAborted()
    if (action) await execute(action, host, lost, deps, signal)
  } catch (error) {
    signal.throwIfAborted()
    // Somebody wrote first: the next look shows what.
    if (isReason(error, 'Conflict')) return { next: 'wait', ms: conflictMs }
    lost.broke(clock.elapsed())
    deps.meter?.add('plasmavmc_fence_steps_failed_total', { step: action?.do ?? 'record' })
    deps.log.warn('pass over a host failed', { host, step: action?.do, message: adviceOf(error) })
    return { next: 'wait', ms: lost.tries(clock.elapsed()).retryInMs }
  }
  lost.done()
  if (!action) return { next: 'done' }
  const { retryInMs } = lost.tries(clock.elapsed())
  if (retryInMs > 0) return { next: 'wait', ms: retryInMs }
  return leadsOn.has(action.do) ? { next: 'again' } : { next: 'done' }
}

const conflictMs = 100

/** While its agent is silent it is not back as a whole: what machines were marked with is remembered. */
const isBack = ({ conditions }: HostPlan): boolean =>
  conditions.some(({ type, status }) => type === 'Fenced' && status === 'False') &&
  !conditions.some(({ reason }) => reason === 'AgentSilent')

async function record(name: string, { conditions: facts }: HostPlan, deps: HostsDeps): Promise<void> {
  if (facts.length === 0) return
  const { objects, clock, tell } = deps
  const host = await objects.get(Host, { name }).catch((error: unknown) => {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  })
  if (!host) return
  const before = host.status?.conditions
  const generation = host.metadata.generation ?? 0
  const ours = setConditions(before, facts, rfc3339(clock.now()), generation)
  const conditions = mergeConditions(before, ours)
  if (isDeepStrictEqual(conditions, before)) return
  const status = { ...{ addresses: [], capabilities: [], orphans: [] }, ...host.status, conditions }
  try {
    const written = await objects.updateStatus(Host, { ...host, status })
    for (const happening of happeningsOf(before, facts)) tell(Host, written, happening)
  } catch (error) {
    // Its agent wrote at the same time, and shows that it lives; or the host is gone. What is said to people must not
    // hold up what is done.
    if (!isReason(error, 'Conflict') && !isReason(error, 'NotFound')) throw error
  }
}
