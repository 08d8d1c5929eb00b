import { type ConditionFact, setConditions } from '../../resources/conditions.ts'
import { localDisks } from '../../resources/disk-reach.ts'
import { lossMark } from '../../resources/host-loss.ts'
import type { StoragePool } from '../../resources/kinds.ts'
import { misunderstood } from '../../resources/understood.ts'
import { type VirtualMachine, type VmStatus, vmFinalizer, vmStatusOf } from '../../resources/vm.ts'
import { comesBack, mayRun, powerAfterRequest } from '../../resources/vm-power.ts'
import { mergeConditions } from './conditions.ts'
import { evidenceName } from './evidence.ts'
import type { EvidenceSpec, Mark } from './types.ts'

/** Nothing of it ever ran anywhere: there is nothing that could wait for a host. */
const neverRan = (vm: VirtualMachine): boolean =>
  !mayRun(vm) && vm.status?.lastExit === undefined && (vm.status?.restarts ?? 0) === 0

export interface Stay {
  readonly reason: Mark['reason']
  readonly why: string
}

/** Why a machine stays with its host whatever is known of that. */
function tied(vm: VirtualMachine, host: string, pools: readonly StoragePool[]): Stay | undefined {
  if (vm.metadata.deletionTimestamp !== undefined)
    return {
      reason: 'HostLost',
      why: `it is being deleted; what it left on ${host} is removed when ${host} is back`,
    }
  const unclear = misunderstood(vm)
  if (unclear !== undefined)
    return {
      reason: 'HostLost',
      why: `another version of PlasmaVMC stored what this one does not understand (${unclear}), so it waits for ${host}, or for a leader of that version`,
    }
  const [disk] = localDisks(vm, pools)
  return (
    disk && {
      reason: 'StorageLost',
      why: `only ${host} can reach its disk ${disk.name} (${disk.field}), so it waits for ${host}`,
    }
  )
}

/** Why a machine stays with its host although that is proven dead, by such a proof. */
function unwilling(vm: VirtualMachine, host: string, proof: EvidenceSpec['proof']): Stay | undefined {
  const { spec, status } = vm
  if (neverRan(vm)) return undefined
  if (spec.recovery.onHostLoss !== 'Failover')
    return { reason: 'HostLost', why: `it waits for ${host}, as spec.recovery.onHostLoss is Manual` }
  if (!mayRun(vm)) return undefined
  const whole = proof === 'Command' || proof === 'Operator'
  if (whole || status?.onHostLoss === 'Failover') return undefined
  return {
    reason: 'HostLost',
    why: `when ${host} was lost, it had not promised yet to stop this machine; it waits for ${host}, or until you say that ${host} is off: 'plasmavmc host fence ${host} --confirm-off'`,
  }
}

/**
 * Why a machine is not taken from its lost host on this evidence; undefined where it is. The machine must have been
 * read after the evidence was stored.
 */
export function whyNotTaken(
  vm: VirtualMachine,
  evidence: Pick<EvidenceSpec, 'host' | 'epoch' | 'proof'>,
  pools: readonly StoragePool[],
): Stay | undefined {
  const { host, epoch, proof } = evidence
  const { status } = vm
  if (status?.hostName !== host) return { reason: 'HostLost', why: `it is not placed on ${host}` }
  // A host that is back puts its epoch to whatever it takes up, before anything else.
  if ((status.placementEpoch ?? 0) >= epoch)
    return { reason: 'HostLost', why: `${host} was given it, or took it up, since it was fenced` }
  return tied(vm, host, pools) ?? unwilling(vm, host, proof)
}

/** Whether a machine may leave its lost host without evidence: nothing of it can be running, or lies only there. */
export function mayGiveUp(vm: VirtualMachine, host: string, pools: readonly StoragePool[]): boolean {
  if (vm.status?.hostName !== host || mayRun(vm)) return false
  return (tied(vm, host, pools) ?? unwilling(vm, host, 'Operator')) === undefined
}

/** Why a machine leaves its host without evidence. */
export type GivenUp = 'HostLost' | 'AgentSilent'

/** Whether a machine that its host was to start is not waited for, as the host's agent gives no sign of life. */
export const isStranded = (vm: VirtualMachine, host: string, pools: readonly StoragePool[]): boolean =>
  vm.status?.phase === 'Pending' && mayGiveUp(vm, host, pools)

/** How the host of a machine was lost, and how that is dealt with. */
export interface Loss {
  readonly host: string
  /** RFC 3339. */
  readonly since: string
  /** The proof by which its machines are to be taken; undefined where only a person's word will do. */
  readonly proof?: EvidenceSpec['proof']
}

/** What a machine of a lost host is marked with. */
export function markOf(
  vm: VirtualMachine,
  { host, since, proof }: Loss,
  pools: readonly StoragePool[],
): Mark {
  const stay = tied(vm, host, pools) ?? unwilling(vm, host, proof ?? 'Operator')
  const next =
    proof === undefined
      ? `it is started elsewhere once you say that ${host} is off: 'plasmavmc host fence ${host} --confirm-off'`
      : `it is started elsewhere once ${host} is proven dead: see condition Fenced in 'plasmavmc describe host ${host}'`
  const { reason, why } = stay ?? { reason: 'HostLost', why: next }
  return {
    ...{ phase: 'Unknown', reason, key: `${reason}: ${why}` },
    message: `host ${host} is lost since ${since}; ${why}`,
  }
}

/**
 * What a machine that is being deleted says while its host's agent, which alone can end that, gives no sign of life;
 * undefined of one that nobody deletes. What the agent said last stays of all others: it is true as far as is known.
 */
export function waitsForAgent(vm: VirtualMachine, host: string): Mark | undefined {
  if (vm.metadata.deletionTimestamp === undefined) return undefined
  const what = mayRun(vm) ? 'its QEMU runs on there, and the finalizer' : 'the finalizer'
  const message = `it is being deleted, but host ${host} ${hostWords.AgentSilent}: ${what} ${vmFinalizer} stays until that server is back; 'plasmavmc describe host ${host}' says more`
  return { phase: 'Terminating', reason: 'AgentSilent', key: `AgentSilent: ${message}`, message }
}

/** Whether it says so already, whatever its agent has added. */
export function isMarked({ status }: VirtualMachine, { phase, reason, message }: Mark): boolean {
  if (status?.phase === phase && status.reason === reason && status.message === message) return true
  const has = lossMark(status)
  return has?.reason === reason && has.message === message
}

/** The status of a machine whose host is lost: what it was is not known any more; all else stays as it was recorded. */
export function markedStatus(vm: VirtualMachine, mark: Mark, at: string): VmStatus {
  const { phase, reason, message } = mark
  const ready: ConditionFact = { type: 'Ready', status: 'Unknown', reason, message }
  return { ...vmStatusOf(vm), phase, reason, message, conditions: conditionsOf(vm, ready, at) }
}

function conditionsOf(vm: VirtualMachine, ready: ConditionFact, at: string): VmStatus['conditions'] {
  const generation = vm.status?.observedGeneration ?? vm.metadata.generation ?? 0
  return mergeConditions(vm.status?.conditions, setConditions(vm.status?.conditions, [ready], at, generation))
}

/** What its host alone could say of it, and placement said of that host. */
function leftBehind(status: VmStatus | undefined): VmStatus {
  const {
    hostName: _h,
    placementEpoch: _e,
    process: _p,
    launch: _l,
    onHostLoss: _o,
    ...rest
  } = vmStatusOf({ status })
  const { stop, pausedByUser: _u, ioError: _i, guest: _g, ...kept } = rest
  // Who asked for it to be stopped does not get it started elsewhere.
  if (stop && !comesBack.has(stop.why) && kept.power) kept.power = powerAfterRequest(kept.power, 'Down')
  return kept
}

/** What is with the host then. */
export const hostWords: Readonly<Record<GivenUp, string>> = {
  HostLost: 'is lost',
  AgentSilent: 'has a server that gives no sign of life',
}

/** The status of a machine that is to get another host. @param evidence absent where it needed none */
export function takenStatus(
  vm: VirtualMachine,
  host: string,
  at: string,
  evidence?: Pick<EvidenceSpec, 'host' | 'epoch'>,
  reason: GivenUp = 'HostLost',
): VmStatus {
  const launchId = vm.status?.process?.launchId ?? vm.status?.launch?.id
  const message = `host ${host} ${hostWords[reason]}; it is to be placed on another`
  const name = evidence && evidenceName(evidence)
  const ran = mayRun(vm) && name !== undefined
  const ready: ConditionFact = { type: 'Ready', status: 'False', reason, message }
  return {
    ...leftBehind(vm.status),
    ...{ phase: 'Pending', reason, message },
    ...(name !== undefined && { evidence: name }),
    ...(ran && {
      lastExit: {
        ...{ reason: 'HostLost' as const, message: `host ${host} was lost, and proven dead by ${name}`, at },
        ...(launchId !== undefined && { launchId }),
      },
    }),
    conditions: conditionsOf(vm, ready, at),
  }
}

/** Those with a higher priority first; of equals the one that was made first. */
export function byPriority(a: VirtualMachine, b: VirtualMachine): number {
  const [first, second] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? '']
  return (
    b.spec.priority - a.spec.priority ||
    first.localeCompare(second) ||
    a.metadata.name.localeCompare(b.metadata.name)
  )
}
