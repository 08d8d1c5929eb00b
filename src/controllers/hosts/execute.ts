import type { FenceOutcome, FenceRun } from '../../host/fence-command.ts'
import type { Clock } from '../../lib/clock.ts'
import { withDeadline } from '../../lib/deadline.ts'
import type { Log } from '../../lib/log.ts'
import type { KubeObject, ResourceDefinition } from '../../resources/define.ts'
import { FenceEvidence } from '../../resources/fence-evidence.ts'
import { hostLeaseName, systemNamespace } from '../../resources/host-lease.ts'
import { Host, Lease } from '../../resources/kinds.ts'
import { takeOver } from '../../runtime/lease.ts'
import { ApiError, isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { evidenceOf, isOf, versionOf, withProof } from './evidence.ts'
import { giveUpMachines, type MachineDeps, markMachines, takeMachines } from './execute-machines.ts'
import type { LostHost } from './memory.ts'
import type { Action, AskVotes, EvidenceSpec, Happening } from './types.ts'
import { refusedWords, votePassed } from './verdict.ts'

export interface ExecuteDeps extends MachineDeps {
  readonly objects: ObjectStore
  readonly votes: AskVotes
  readonly runCommand: (run: FenceRun) => Promise<FenceOutcome>
  /** Records a Kubernetes Event; must not reject. */
  readonly tell: (kind: ResourceDefinition, about: KubeObject, happening: Happening) => void
  /** One more look at the leases. */
  readonly look: () => Promise<void>
  /** Evidence just stored, which the copy may not have yet. */
  readonly learnt: (evidence: FenceEvidence) => void
  readonly durationMs: number
  readonly clock: Clock
  readonly log: Log
}

/** Longest wait for the answers of other hosts. */
const votesMs = 5_000

/** Does one step for a lost host. Each is safe to repeat, and to lose. */
export async function execute(
  action: Action,
  host: string,
  memory: LostHost,
  deps: ExecuteDeps,
  signal: AbortSignal,
): Promise<void> {
  deps.log.info('step for a lost host', { host, step: action.do })
  switch (action.do) {
    case 'mark':
      return markMachines(action.machines, host, memory, deps, signal)
    case 'giveUp':
      return giveUpMachines(action, host, memory, deps, signal)
    case 'takeMachines':
      return takeMachines(action, host, memory, deps, signal)
    case 'refuseClaim':
      return refuseClaim(action, host, deps)
    case 'askVotes':
      return askVotes(action, host, memory, deps, signal)
    case 'runCommand':
      return runCommand(action, memory, deps, signal)
    case 'takeLease':
      return takeLease(action, deps)
    case 'storeEvidence':
      return storeEvidence(action.evidence, deps)
    case 'deleteLease': {
      const { uid, resourceVersion } = action.lease.metadata
      const same = {
        ...(uid !== undefined && { uid }),
        ...(resourceVersion !== undefined && { resourceVersion }),
      }
      await deps.objects.delete(Lease, { namespace: systemNamespace, name: hostLeaseName(host) }, same)
      return deps.look()
    }
    default:
      return action satisfies never
  }
}

type Of<Do extends Action['do']> = Extract<Action, { do: Do }>

async function refuseClaim(
  { claim, why }: Of<'refuseClaim'>,
  host: string,
  deps: ExecuteDeps,
): Promise<void> {
  const { name, uid } = claim.metadata
  const about = await found(deps.objects.get(Host, { name: host }))
  const gone = await found(deps.objects.delete(FenceEvidence, { name }, uid === undefined ? {} : { uid }))
  if (!gone) return
  deps.log.warn('a confirmation that a host is off is refused', { host, by: claim.spec.by })
  if (about) deps.tell(Host, about, { type: 'Warning', reason: 'ClaimRefused', message: why })
}

async function askVotes(
  { lease, facts }: Of<'askVotes'>,
  host: string,
  memory: LostHost,
  { votes, clock }: ExecuteDeps,
  signal: AbortSignal,
): Promise<void> {
  const ask = (votesSignal: AbortSignal) => votes(lease, facts, votesSignal)
  const got = await withDeadline(votesMs, 'asking the other hosts', ask, { signal, clock })
  if (!votePassed(facts, host, got.consents))
    return memory.refused(clock.elapsed(), { reason: 'VoteRefused', message: refusedWords(facts, host, got) })
  memory.voted(clock.elapsed(), versionOf(lease), got)
  memory.settled('VoteRefused')
}

async function runCommand(
  { lease, command, timeoutMs }: Of<'runCommand'>,
  memory: LostHost,
  deps: ExecuteDeps,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name } = lease.metadata
  // A leader that slept must not switch off a host that is back meanwhile.
  const now = await deps.objects.get(Lease, { name, ...(namespace !== undefined && { namespace }) })
  if (versionOf(now) !== versionOf(lease))
    throw new ApiError('Conflict', `lease ${name} has changed meanwhile`)
  signal.throwIfAborted()
  const outcome = await deps.runCommand({ command, timeoutMs, signal })
  memory.ran(deps.clock.elapsed(), versionOf(lease), outcome)
  if (outcome.state === 'failed')
    memory.refused(deps.clock.elapsed(), { reason: outcome.reason, message: `${outcome.why}; tried again` })
}

async function takeLease({ lease, evidence }: Of<'takeLease'>, deps: ExecuteDeps): Promise<void> {
  const { host, epoch, proof, silentMs = 0, neededMs = Number.POSITIVE_INFINITY } = evidence
  const { objects, clock, durationMs, log } = deps
  try {
    // With the version that was silent: a renewal that came since then makes this fail.
    const options = { objects, clock, terms: { durationMs }, silentMs, neededMs }
    if (!(await takeOver(withProof(lease, evidence), options)))
      throw new ApiError('Conflict', `the lease of ${host} has changed meanwhile`)
    log.warn('lease of a lost host taken', { host, epoch, proof })
  } finally {
    await deps.look()
  }
}

async function storeEvidence(spec: EvidenceSpec, deps: ExecuteDeps): Promise<void> {
  const wanted = evidenceOf(spec)
  try {
    deps.learnt(await deps.objects.create(FenceEvidence, wanted))
    deps.meter?.add('plasmavmc_fence_evidence_total', { proof: spec.proof })
  } catch (error) {
    if (!isReason(error, 'AlreadyExists')) throw error
    const stored = await deps.objects.get(FenceEvidence, { name: wanted.metadata.name })
    // Another's is no success: the next plan sees it, and takes a newer epoch.
    deps.learnt(stored)
    if (!isOf(stored, spec))
      deps.log.warn('evidence of that name is of something else', { name: wanted.metadata.name })
  }
}

async function found<T>(read: Promise<T>): Promise<T | undefined> {
  try {
    return await read
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}
