import { adviceOf } from '../../lib/errors.ts'
import type { ConditionFact } from '../../resources/conditions.ts'
import type { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { Host } from '../../resources/host.ts'
import { type HostLeaseFacts, leaseFacts, membersOf, mostAgree } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'
import { claimFor, epochOf, holdsFor, isFenced, nextEpoch, versionOf } from './evidence.ts'
import type { Silence } from './sight.ts'
import type { Action, EvidenceSpec, Tries, Votes, World } from './types.ts'

/** What is said of a lost host whose lease has not been taken yet, and the next step on the way there. */
export interface Verdict {
  readonly fenced: Omit<ConditionFact, 'type'>
  readonly action?: Action
}

/** A lost host, with what is decided of all. */
export interface Lost {
  readonly name: string
  readonly spec: Host['spec']
  readonly lease: Lease
  readonly silence: Silence
  readonly tries: Tries
  /** Why all is held; undefined where nothing is. */
  readonly brake: string | undefined
  /** RFC 3339. */
  readonly at: string
}

/** Two clocks drift apart by less; the same allowance as in the terms of leases. */
const drift = 1.02
/** A guard that holds needs this long at most to notice that it may no longer; until then it has not begun to stop. */
const votedStopMs = 2_000
/** Consent this old is asked for anew, unless a command that took its time has switched the host off meanwhile. */
const votesGoodMs = 30_000

/** Ms of certain silence after which a host has stopped what it promised to stop. */
export function neededMs({ deadlineMs, stopMs }: HostLeaseFacts, durationMs: number): number {
  return Math.max(durationMs, Math.ceil((deadlineMs + stopMs) * drift))
}

/** Whether more than half of all members consent, the lost host never among them. */
export function votePassed(facts: HostLeaseFacts, host: string, consents: readonly string[]): boolean {
  return mostAgree(facts.members, host, consents)
}

/** The way of fencing that was declared, as proof; undefined for none. */
export function proofOf(mode: Host['spec']['fencing']['mode']): EvidenceSpec['proof'] | undefined {
  return ({ none: undefined, guard: 'Guard', watchdog: 'Watchdog', command: 'Command' } as const)[mode]
}

const unknown = (reason: string, message: string, action?: Action): Verdict => ({
  fenced: { status: 'Unknown', reason, message },
  ...(action && { action }),
})

/** What to do about a host that is lost and not fenced, and why no more than that. */
export function judge(lost: Lost, world: World): Verdict {
  return claimed(lost, world) ?? held(lost) ?? proven(lost, world)
}

/** A person's word, where there is one. */
function claimed(lost: Lost, world: World): Verdict | undefined {
  const { name, lease, silence, at } = lost
  const claim = claimFor(world.evidence, name, lease)
  if (!claim) return undefined
  const { by } = claim.spec
  if (!holdsFor(claim, lease)) return unknown('ClaimRefused', claimWords(claim), refuse(claim))
  const evidence: EvidenceSpec = {
    ...claim.spec,
    ...{ leaderEpoch: world.leader.epoch, at, silentMs: Math.floor(silence.certainMs), votes: [] },
    // One that was taken already is nobody's to be silent.
    neededMs: isFenced(lease) ? 0 : world.durationMs,
  }
  return unknown('Fencing', `${by} says that it is off; its lease is being taken`, {
    ...{ do: 'takeLease', lease, evidence },
  })
}

export const refuse = (claim: FenceEvidence): Action => ({
  ...{ do: 'refuseClaim', claim, why: claimWords(claim) },
})

function claimWords({ spec: { by, host } }: FenceEvidence): string {
  return `${by} said that ${host} is off, but its lease was renewed after that; look again, and where it is off say so anew: 'plasmavmc host fence ${host} --confirm-off'`
}

function factsOf(lease: Lease): HostLeaseFacts | string {
  try {
    return leaseFacts(lease)
  } catch (error) {
    return adviceOf(error)
  }
}

const orSay = (name: string) => `or say that it is off: 'plasmavmc host fence ${name} --confirm-off'`

/** What keeps every fencing without a person's word back. */
function held({ name, lease, spec, brake }: Lost): Verdict | undefined {
  const facts = factsOf(lease)
  if (typeof facts === 'string') return unknown('NoPromise', `${facts}; ${orSay(name)}`)
  if (facts.maintenance !== undefined)
    return unknown(
      'Maintenance',
      `its lease says that it is in maintenance until ${facts.maintenance}: it stops nothing by itself; start it, ${orSay(name)}`,
    )
  if (brake !== undefined) return unknown('BrakeHeld', brake)
  return unfit(name, spec, facts)
}

function unfit(name: string, { fencing }: Host['spec'], facts: HostLeaseFacts): Verdict | undefined {
  const { mode, command } = fencing
  const members = membersOf(facts.members, name)
  const announced = { guard: ['guard', 'watchdog'], watchdog: ['watchdog'] } as const
  if (mode === 'none') return unknown('NoFencing', `declare spec.fencing, ${orSay(name)}`)
  if (mode === 'command' && command.length === 0)
    return unknown('NoFencing', `spec.fencing.command names no program; name one, ${orSay(name)}`)
  if (mode !== 'command' && !(announced[mode] as readonly string[]).includes(facts.selfFence))
    return unknown(
      'NoPromise',
      `spec.fencing.mode is ${mode}, but what the host promised when it was last heard of is self-fence "${facts.selfFence}", and that counts; start it, ${orSay(name)}`,
    )
  if (members.length < 3)
    return unknown(
      'VoteRefused',
      `its lease knows ${members.length} hosts, and more than half of all must agree without it: it takes three; ${orSay(name)}`,
    )
  return undefined
}

/** Time, votes, command: one step at a time. `held` has said that nothing is against it. */
function proven(lost: Lost, world: World): Verdict {
  const { lease, silence, tries, spec } = lost
  const facts = leaseFacts(lease)
  const needed = neededMs(facts, world.durationMs)
  const going = (message: string, action?: Action) => {
    const { reason, message: why } = tries.why ?? { reason: 'Fencing', message }
    return unknown(reason, why, action)
  }
  if (silence.certainMs < needed)
    return going(
      `waiting until it has been silent for ${needed / 1000} s, by when it has stopped its machines`,
    )
  if (tries.retryInMs > 0) return going('waiting for the next try')
  const votes = votesFor(lost)
  if (!votes) return going('asking the other hosts', { do: 'askVotes', lease, facts })
  if (spec.fencing.mode === 'command') {
    const { command, timeoutSeconds } = spec.fencing
    if (!isOff(tries, lease))
      return going('its fence command runs', {
        ...{ do: 'runCommand', lease, command, timeoutMs: timeoutSeconds * 1000 },
      })
  } else if (votes.ageMs < Math.max(0, Math.ceil(facts.stopMs * drift) - votedStopMs))
    return going('the other hosts agree; waiting until it has stopped its machines')
  return going('its lease is being taken', { do: 'takeLease', lease, evidence: evidenceFor(lost, world) })
}

/** The votes that let it go on; undefined where they are still to be asked for. */
function votesFor({ name, lease, tries }: Lost): NonNullable<Tries['votes']> | undefined {
  const { votes } = tries
  if (votes?.resourceVersion !== versionOf(lease)) return undefined
  if (!votePassed(leaseFacts(lease), name, votes.consents)) return undefined
  return votes.ageMs <= votesGoodMs || isOff(tries, lease) ? votes : undefined
}

const isOff = ({ command }: Tries, lease: Lease): boolean =>
  command?.resourceVersion === versionOf(lease) && command.outcome.state === 'off'

function evidenceFor({ name, lease, silence, tries, spec, at }: Lost, world: World): EvidenceSpec {
  const facts = leaseFacts(lease)
  const [votes, needed] = [tries.votes?.consents ?? [], neededMs(facts, world.durationMs)]
  const { holderIdentity: holder, renewTime } = lease.spec
  const silentMs = Math.floor(silence.certainMs)
  const outcome = tries.command?.outcome
  const what = [
    `its lease did not change for ${silentMs} ms, of ${needed} ms that it needs (deadline ${facts.deadlineMs} ms and ${facts.stopMs} ms to stop, self-fence "${facts.selfFence}")`,
    `${votes.join(', ')} of ${membersOf(facts.members, name).length} members agreed`,
    ...(spec.fencing.mode === 'command' && outcome?.state === 'off' ? [outcome.seen] : []),
  ]
  return {
    ...{
      host: name,
      epoch: nextEpoch(world.evidence, name, lease),
      proof: proofOf(spec.fencing.mode) ?? 'Guard',
    },
    ...{ by: world.leader.name, leaderEpoch: world.leader.epoch, at, silentMs, neededMs: needed },
    lease: {
      ...{ epoch: epochOf(lease), resourceVersion: versionOf(lease) },
      ...(holder !== undefined && { holder }),
      ...(renewTime !== undefined && { renewTime }),
    },
    ...{ votes: [...votes], seen: what.join('; ') },
  }
}

/** Why votes do not suffice, in words. */
export function refusedWords(facts: HostLeaseFacts, host: string, { consents, refusals }: Votes): string {
  const all = membersOf(facts.members, host).length
  const why = refusals.map((one) => `${one.host}: ${one.why}`).join('; ')
  const agree = consents.length === 0 ? 'none' : consents.join(', ')
  return `more than half of its ${all} members must agree: ${agree} did${why === '' ? '' : `; ${why}`}; tried again`
}
