import { rfc3339 } from '../../lib/clock.ts'
import type { ConditionFact } from '../../resources/conditions.ts'
import { type Host, hostSpec } from '../../resources/host.ts'
import { leaseFacts } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { claimFor, evidenceName, holdsFor, isFenced, isOf, nextEpoch, noted } from './evidence.ts'
import {
  byPriority,
  type GivenUp,
  isMarked,
  isStranded,
  markOf,
  mayGiveUp,
  waitsForAgent,
  whyNotTaken,
} from './machines.ts'
import { type Silence, silenceOf } from './sight.ts'
import type { Action, HostPlan, Mark, Tries, World } from './types.ts'
import { judge, proofOf, refuse, type Verdict } from './verdict.ts'

export const noTries: Tries = {
  ...{ failures: 0, retryInMs: 0 },
  ...{ marked: new Map(), overdue: new Set(), handled: new Map() },
}

/** How a host stands, by its lease alone. `unsure`: nothing is known yet, and what was recorded stays. */
export type Standing = 'alive' | 'unsure' | 'lost' | 'fenced' | 'leaseless'

/** A host with what is known of it. The Host may be gone while its lease is still there. */
interface View {
  readonly name: string
  readonly host?: Host
  readonly lease?: Lease
  readonly silence: Silence
  readonly standing: Standing
  readonly machines: readonly VirtualMachine[]
  readonly tries: Tries
}

/** What is taken for half, whatever a user says. */
const largestBrake = 50

/**
 * What is so of every host, and the next safe steps for those that are lost. Pure and total.
 * @param now wall ms, for records only
 */
export function planHosts(world: World, now: number): ReadonlyMap<string, HostPlan> {
  if (!world.watched) return new Map()
  const views = viewsOf(world)
  const brake = brakeOf(views, world)
  return new Map(views.map((view) => [view.name, planHost(view, brake, world, now)]))
}

function viewsOf(world: World): readonly View[] {
  const { watched, hosts } = world
  if (!watched) return []
  const machines = Map.groupBy(world.machines, ({ status }) => status?.hostName ?? '')
  const byName = new Map(hosts.map((host) => [host.metadata.name, host]))
  const names = [...new Set([...byName.keys(), ...watched.sights.keys()])].sort()
  return names.map((name) => {
    const [host, sight] = [byName.get(name), watched.sights.get(name)]
    const silence = sight ? silenceOf(sight, watched) : { certainMs: 0 }
    const watchedMs = watched.last.startedAt - watched.begunAt
    return {
      ...{ name, silence, machines: machines.get(name) ?? [], tries: world.tries.get(name) ?? noTries },
      standing: standingOf(sight?.lease, silence, watchedMs, world.durationMs),
      ...(host && { host }),
      ...(sight && { lease: sight.lease }),
    }
  })
}

function standingOf(
  lease: Lease | undefined,
  { certainMs, possibleMs }: Silence,
  watchedMs: number,
  durationMs: number,
): Standing {
  if (!lease) return watchedMs < durationMs ? 'unsure' : 'leaseless'
  if (isFenced(lease)) return 'fenced'
  if (certainMs >= durationMs) return 'lost'
  return possibleMs === undefined ? 'unsure' : 'alive'
}

/** Why nothing may be fenced now: so many may be lost at once that it is probably us. */
function brakeOf(views: readonly View[], { brakePercent, suspectMs }: World): string | undefined {
  const leased = views.filter(({ lease }) => lease !== undefined)
  const missing = leased.filter(
    ({ standing, silence }) =>
      standing === 'lost' || standing === 'fenced' || (silence.possibleMs ?? Infinity) >= suspectMs,
  )
  const percent = Math.min(largestBrake, brakePercent)
  if (missing.length * 100 < percent * leased.length) return undefined
  const names = missing.map(({ name }) => name).join(', ')
  return `${missing.length} of ${leased.length} hosts may be lost (${names}): at ${percent} % nothing is fenced, as it is probably the network or the store; it goes on by itself once they renew their leases`
}

function planHost(view: View, brake: string | undefined, world: World, now: number): HostPlan {
  switch (view.standing) {
    case 'unsure':
      return { conditions: [], actions: [] }
    case 'leaseless':
      return planLeaseless(view)
    case 'alive':
      return planAlive(view, world)
    case 'lost':
      return planLost(view, brake, world, now)
    case 'fenced':
      return planFenced(view, world, now)
  }
}

const fact = (
  type: string,
  status: ConditionFact['status'],
  reason: string,
  message = '',
): ConditionFact => ({ type, status, reason, message })

function planLeaseless(view: View): HostPlan {
  const why = `it has no lease (plasmavmc-system/host-${view.name}): no guard of it renews one; start its server`
  const conditions = [
    fact('Ready', 'Unknown', 'NoLease', why),
    ...unguarded(view, 'NoLease', why),
    fact('Fenced', 'Unknown', 'NoLease', why),
    fact('Schedulable', 'False', 'NoLease', why),
  ]
  return { conditions, actions: [] }
}

function planAlive(view: View, { evidence, pools }: World): HostPlan {
  const { name, lease, host, machines, tries } = view
  const claim = lease && claimFor(evidence, name, lease)
  const silent = lease !== undefined && agentIsSilent(lease)
  const ready = host?.status?.conditions.find(({ type }) => type === 'Ready')
  const silence = 'its guard renews its lease, but its agent gives no sign of life: its machines run on'
  // What its agent says of the guard stands; in place of what we have said there is now the renewal.
  const guarded =
    silent || guardedOf(host)?.status === 'Unknown' ? [fact('Guarded', 'True', 'LeaseHeld')] : []
  const agent = [...(silent ? [fact('Ready', 'Unknown', 'AgentSilent', silence)] : []), ...guarded]
  const conditions = [
    ...agent,
    fact('Fenced', 'False', 'LeaseRenewed'),
    schedulable(
      host?.spec,
      silent ? 'AgentSilent' : ready?.status === 'True' ? undefined : (ready?.reason ?? 'NotReported'),
    ),
  ]
  return {
    conditions,
    actions: firstOf([
      // One that came before the host is known to be lost waits; one that a renewal overtook counts for nothing.
      claim && lease && !holdsFor(claim, lease) ? refuse(claim) : undefined,
      silent
        ? giving(
            machines.filter((vm) => isStranded(vm, name, pools)),
            tries,
            'AgentSilent',
          )
        : undefined,
      silent ? marking(machines, tries, (vm) => waitsForAgent(vm, name)) : undefined,
    ]),
  }
}

function agentIsSilent(lease: Lease): boolean {
  try {
    return leaseFacts(lease).agent === 'silent'
  } catch {
    return false
  }
}

function schedulable(spec: Host['spec'] | undefined, notReady: string | undefined): ConditionFact {
  const no = (reason: string, message: string) => fact('Schedulable', 'False', reason, message)
  if (spec?.unschedulable) return no('Cordoned', "spec.unschedulable is set; 'plasmavmc uncordon' ends it")
  if (spec?.maintenance)
    return no('Maintenance', `in maintenance until ${spec.maintenance.until}: ${spec.maintenance.reason}`)
  if (notReady !== undefined) return no('NotReady', `condition Ready: ${notReady}`)
  return fact('Schedulable', 'True', 'Schedulable')
}

/**
 * A lease that is not renewed is held by no guard. Why that is only the host's agent can say, if it reaches the store; what
 * it says stands.
 */
function unguarded({ host }: View, reason: string, why: string): ConditionFact[] {
  return guardedOf(host)?.status === 'False' ? [] : [fact('Guarded', 'Unknown', reason, why)]
}

const guardedOf = (host: Host | undefined) => host?.status?.conditions.find(({ type }) => type === 'Guarded')

function lostConditions(view: View, fenced: Verdict['fenced']): ConditionFact[] {
  const { name } = view
  const why = `its lease plasmavmc-system/host-${name} is not renewed any more`
  return [
    fact('Ready', 'Unknown', 'LeaseExpired', why),
    ...unguarded(view, 'LeaseExpired', why),
    { type: 'Fenced', ...fenced },
    fact('Schedulable', 'False', 'LeaseExpired', why),
  ]
}

function planLost(view: View, brake: string | undefined, world: World, now: number): HostPlan {
  const { name, host, lease, silence, tries } = view
  if (!lease) return planLeaseless(view)
  if (!host && view.machines.length === 0) return { conditions: [], actions: [{ do: 'deleteLease', lease }] }
  const spec = host?.spec ?? hostSpec.parse({})
  const verdict = judge({ ...{ name, spec, lease, silence, tries, brake }, at: rfc3339(now) }, world)
  const conditions = lostConditions(view, verdict.fenced)
  const held = verdict.fenced.reason === 'BrakeHeld' || verdict.fenced.reason === 'Maintenance'
  const actions = firstOf([marks(view, world, now), held ? undefined : givingUp(view, world), verdict.action])
  return { conditions, actions }
}

function planFenced(view: View, world: World, now: number): HostPlan {
  const { name, host, lease, machines, silence } = view
  if (!lease) return planLeaseless(view)
  if (!host && machines.length === 0) return { conditions: [], actions: [{ do: 'deleteLease', lease }] }
  const claim = claimFor(world.evidence, name, lease)
  if (claim) {
    const spec = host?.spec ?? hostSpec.parse({})
    const lost = { ...{ name, spec, lease, silence, tries: view.tries }, brake: undefined, at: rfc3339(now) }
    const { fenced, action } = judge(lost, world)
    const conditions = lostConditions(view, fenced)
    return { conditions, actions: firstOf([action]) }
  }
  const { fenced, actions: steps } = fencedSteps(view, lease, world)
  const conditions = lostConditions(view, fenced)
  const actions = firstOf([marks(view, world, now), givingUp(view, world), ...steps])
  return { conditions, actions }
}

/** Of a lease that was taken: the evidence is stored, then the machines are taken. */
function fencedSteps(
  view: View,
  lease: Lease,
  world: World,
): { readonly fenced: Verdict['fenced']; readonly actions: readonly (Action | undefined)[] } {
  const { name, machines, tries } = view
  const spec = noted(lease, name)
  if (!spec) {
    const message = `its lease is held by "fenced", but does not say why; say that it is off: 'plasmavmc host fence ${name} --confirm-off'`
    return { fenced: { status: 'Unknown', reason: 'EvidenceMissing', message }, actions: [] }
  }
  const stored = world.evidence.find(({ metadata }) => metadata.name === evidenceName(spec))
  if (!stored) {
    const message = 'its lease was taken; the evidence for that is being stored'
    return {
      fenced: { status: 'Unknown', reason: 'Fencing', message },
      actions: [{ do: 'storeEvidence', evidence: spec }],
    }
  }
  if (!isOf(stored, spec)) {
    const message = `evidence ${stored.metadata.name} is of something else; its lease is taken under a new epoch`
    const evidence = { ...spec, epoch: nextEpoch(world.evidence, name, lease) }
    return {
      fenced: { status: 'Unknown', reason: 'Fencing', message },
      actions: [{ do: 'takeLease', lease, evidence }],
    }
  }
  const {
    metadata,
    spec: { proof, epoch },
  } = stored
  const leaving = machines.filter(
    (vm) => whyNotTaken(vm, { host: name, epoch, proof }, world.pools) === undefined && isNew(vm, tries),
  )
  return {
    fenced: { status: 'True', reason: 'Fenced', message: `by evidence ${metadata.name}, proof ${proof}` },
    actions:
      leaving.length === 0
        ? []
        : [{ do: 'takeMachines', evidence: metadata.name, machines: leaving.sort(byPriority) }],
  }
}

/** The first step there is: each has a pass of its own. */
function firstOf(steps: readonly (Action | undefined)[]): readonly Action[] {
  const first = steps.find((step) => step !== undefined)
  return first ? [first] : []
}

/** The copy of the machine has changed since it was last looked at afresh. */
function isNew(vm: VirtualMachine, { handled }: Tries): boolean {
  const version = handled.get(vm.metadata.uid ?? '')
  return version === undefined || version !== vm.metadata.resourceVersion
}

function givingUp({ name, machines, tries }: View, { pools }: World): Action | undefined {
  return giving(
    machines.filter((vm) => mayGiveUp(vm, name, pools)),
    tries,
    'HostLost',
  )
}

function giving(machines: readonly VirtualMachine[], tries: Tries, why: GivenUp): Action | undefined {
  const leaving = machines.filter((vm) => isNew(vm, tries))
  return leaving.length === 0 ? undefined : { do: 'giveUp', machines: leaving.sort(byPriority), why }
}

/** Once for each thing there is to say; again only where its host, not quite dead yet, wrote over it. */
function toMark(vm: VirtualMachine, as: Mark, { marked, overdue }: Tries): boolean {
  const uid = vm.metadata.uid ?? ''
  if (marked.get(uid) !== as.key) return !isMarked(vm, as)
  return overdue.has(uid) && (vm.status?.phase !== as.phase || vm.status.reason !== as.reason)
}

function marks(view: View, world: World, now: number): Action | undefined {
  const { name, host, machines, tries } = view
  const ready = host?.status?.conditions.find(({ type }) => type === 'Ready')
  const since =
    ready?.status === 'Unknown' && ready.reason === 'LeaseExpired' ? ready.lastTransitionTime : rfc3339(now)
  const proof = proofOf(host?.spec.fencing.mode ?? 'none')
  const loss = { host: name, since, ...(proof !== undefined && { proof }) }
  return marking(machines, tries, (vm) =>
    mayGiveUp(vm, name, world.pools) ? undefined : markOf(vm, loss, world.pools),
  )
}

function marking(
  machines: readonly VirtualMachine[],
  tries: Tries,
  of: (vm: VirtualMachine) => Mark | undefined,
): Action | undefined {
  const wanted = machines.flatMap((vm) => {
    const as = of(vm)
    return as && toMark(vm, as, tries) ? [{ vm, as }] : []
  })
  return wanted.length === 0 ? undefined : { do: 'mark', machines: wanted satisfies { as: Mark }[] }
}
