import { isDeepStrictEqual } from 'node:util'
import type { GuardNews } from '../../host/guard-word.ts'
import type { LaunchRecord, Processes, QemuProcess, Tenure } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import { rfc3339 } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import { type Condition, type ConditionFact, setConditions } from '../../resources/conditions.ts'
import { Host } from '../../resources/host.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { nameTaken, ownerOf } from './claim.ts'
import { agentLabels, registered } from './register.ts'

export interface HostFacts {
  readonly cpus: number
  readonly memory: string
  readonly accelerator: string
  readonly qemuVersion: string
  readonly agentVersion: string
  /** As Kubernetes names them: amd64, arm64. */
  readonly arch?: string
  readonly addresses?: readonly string[]
  /** Absent while it is not known yet. */
  readonly capabilities?: readonly string[]
  /** Why no machine can be started here: QEMU is missing or too old. */
  readonly qemuProblem?: string
}

export interface HostControllerDeps {
  readonly hostName: string
  readonly runDir: string
  readonly objects: ObjectStore
  readonly processes: Processes
  readonly vms: Informer<VirtualMachine>
  readonly facts: () => Promise<HostFacts>
  /** Whether guests may be started here; `single` unless given. */
  readonly tenure?: () => Tenure | Promise<Tenure>
  /** What there is to say of the guard; nothing unless given. */
  readonly news?: () => GuardNews | undefined
  /** As in `Registration`. */
  readonly hostId?: string
  readonly fencing?: Host['spec']['fencing']['mode']
  readonly clock: Clock
  readonly log: Log
}

type HostStatus = NonNullable<Host['status']>
type Orphan = HostStatus['orphans'][number]

/** QEMUs with our mark and this run directory that no machine claims. Foreign ones and other servers' are not ours to list. */
export function orphansOf(
  processes: readonly QemuProcess[],
  runDir: string,
  claimed: ReadonlySet<string>,
): readonly QemuProcess[] {
  return processes.filter((p) => p.launchId !== undefined && p.runDir === runDir && !claimed.has(p.uid))
}

/**
 * One look at the host: registers it, and records what it has and which QEMUs nobody claims. Writes only changes.
 * @returns how many QEMUs nobody claims
 * @throws PlasmaError `HostNameTaken` where another host goes by this name by now
 */
export async function reconcileHost(deps: HostControllerDeps): Promise<number> {
  const [scan, facts] = await Promise.all([deps.processes.scan(), deps.facts()])
  const { arch = 'amd64', qemuProblem, accelerator } = facts
  const host = await registered({ ...deps, labels: agentLabels(deps.hostName, { arch, accelerator }) })
  const owner = ownerOf(host)
  if (deps.hostId !== undefined && owner !== undefined && owner !== deps.hostId)
    throw nameTaken(deps.hostName, 'it took the name while this one ran', 'give one another name')
  const before = host.status
  const tenure = (await deps.tenure?.()) ?? { state: 'single' }
  const claimed = new Set(deps.vms.list().map((vm) => vm.metadata.uid ?? ''))
  const found = deps.vms.synced ? orphansOf(scan.processes, deps.runDir, claimed) : []
  const orphans = await Promise.all(found.map((process) => describe(process, deps)))
  warn(before, orphans, qemuProblem, deps)
  const news = deps.news?.()
  const ready = readiness({ before, tenure, news, incomplete: scan.incomplete, qemuProblem })
  const own = [ready, ...(news ? [news.guarded] : [])]
  const status: HostStatus = {
    ...before,
    ...factsOf(facts, before),
    bootId: deps.processes.bootId,
    vms: deps.vms.list().filter((vm) => vm.status?.hostName === deps.hostName && vm.status.process).length,
    ...(tenure.state === 'held' && { epoch: tenure.epoch }),
    orphans,
    conditions: withOthers(before?.conditions, own, deps.clock, host.metadata.generation ?? 0),
  }
  if (!isDeepStrictEqual(status, before)) await deps.objects.updateStatus(Host, { ...host, status })
  return orphans.length
}

function factsOf(facts: HostFacts, before: Host['status']) {
  const { arch: _label, qemuProblem: _condition, ...rest } = facts
  return {
    ...rest,
    addresses: [...(facts.addresses ?? before?.addresses ?? [])],
    capabilities: [...(facts.capabilities ?? before?.capabilities ?? [])],
  }
}

/** Says what is new and wrong, once. */
function warn(
  before: Host['status'],
  orphans: readonly Orphan[],
  qemuProblem: string | undefined,
  { log }: HostControllerDeps,
): void {
  const wasReady = before?.conditions.find(({ type }) => type === 'Ready')
  if (qemuProblem !== undefined && wasReady?.message !== qemuProblem)
    log.error('no machine can be started here', { why: qemuProblem })
  for (const { uid, pid, name } of orphans) {
    if (before?.orphans.some((o) => o.uid === uid)) continue
    log.warn('a QEMU with our mark has no resource', { uid, pid, name })
  }
}

/** Our conditions first, then those of others as they are. */
function withOthers(
  before: readonly Condition[] | undefined,
  ours: readonly (ConditionFact | Condition)[],
  clock: Clock,
  generation: number,
): Condition[] {
  const others = (before ?? []).filter(({ type }) => !ours.some((own) => own.type === type))
  const at = rfc3339(clock.now())
  const own = ours.flatMap((one) =>
    'lastTransitionTime' in one ? [one] : setConditions(before, [one], at, generation),
  )
  return [...own, ...others]
}

interface Readiness {
  readonly before: Host['status']
  readonly tenure: Tenure
  readonly news: GuardNews | undefined
  readonly incomplete: string | undefined
  readonly qemuProblem: string | undefined
}

function readiness({ before, tenure, news, incomplete, qemuProblem }: Readiness): ConditionFact | Condition {
  const no = (reason: string, message: string) =>
    ({ type: 'Ready', status: 'False', reason, message }) as const
  // The leader's word for what the lease says stands, else the two would take turns.
  const said = before?.conditions.find(({ type }) => type === 'Ready')
  if (news?.agent === 'silent' && isSilent(said)) return said
  if (tenure.state === 'lost') return said?.status === 'Unknown' ? said : no('LeaseLost', tenure.why)
  if (incomplete !== undefined) return no('ProcessesUnreadable', incomplete)
  if (qemuProblem !== undefined) return no('QemuUnusable', qemuProblem)
  return { type: 'Ready', status: 'True', reason: 'Ready', message: '' }
}

/** As the leader has it of a host whose lease says so. */
const isSilent = (ready: Condition | undefined): ready is Condition =>
  ready?.status === 'Unknown' && ready.reason === 'AgentSilent'

/**
 * Whether a Host says that its lease or its agent is silent, which the agent that holds the lease has to put right: the
 * leader may have looked right before the lease was renewed.
 */
export function isContradicted({ status }: Host): boolean {
  const said = (type: string) => status?.conditions.find((one) => one.type === type)?.status
  return said('Ready') === 'Unknown' || said('Guarded') === 'Unknown'
}

async function describe(process: QemuProcess, deps: HostControllerDeps): Promise<Orphan> {
  const base = {
    uid: process.uid,
    pid: process.pid,
    name: process.name,
    ...(process.launchId && { launchId: process.launchId }),
  }
  let record: LaunchRecord | undefined
  try {
    record = await deps.processes.launchRecord(process.uid)
  } catch (error) {
    deps.log.warn('launch record is unreadable', { uid: process.uid, err: error })
  }
  if (!record || record.launchId !== process.launchId) return base
  const { apiVersion, kind, metadata, spec } = record.manifest
  const { name, namespace, uid, labels, annotations } = metadata
  const manifest = { apiVersion, kind, metadata: { name, namespace, uid, labels, annotations }, spec }
  return { ...base, startedAt: record.at, manifest: JSON.stringify(manifest) }
}
