import type { FenceOutcome } from '../../host/fence-command.ts'
import type { ConditionFact } from '../../resources/conditions.ts'
import type { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { Host } from '../../resources/host.ts'
import type { HostLeaseFacts } from '../../resources/host-lease.ts'
import type { LossReason } from '../../resources/host-loss.ts'
import type { Lease, StoragePool } from '../../resources/kinds.ts'
import type { Phase, VirtualMachine } from '../../resources/vm.ts'
import type { GivenUp } from './machines.ts'
import type { Watched } from './sight.ts'

export type EvidenceSpec = FenceEvidence['spec']

/** What the other members of a lost host's lease answered. */
export interface Votes {
  /** Hosts whose guards hold their own leases, and agree. */
  readonly consents: readonly string[]
  readonly refusals: readonly { readonly host: string; readonly why: string }[]
}

/** Asks the guards of all other members of the lease; resolves with what was answered in time. */
export type AskVotes = (lease: Lease, facts: HostLeaseFacts, signal: AbortSignal) => Promise<Votes>

/** An answer that holds for one version of the lease only. */
export interface Answered {
  readonly resourceVersion: string
  /** Monotonic ms since it was there. */
  readonly ageMs: number
}

/** What this leader has tried for one host, and what came of it. Lost with the process; nothing depends on it. */
export interface Tries {
  readonly failures: number
  /** Ms until the next try; 0 now. */
  readonly retryInMs: number
  readonly why?: { readonly reason: string; readonly message: string }
  readonly votes?: Answered & Votes
  readonly command?: Answered & { readonly outcome: FenceOutcome }
  /** What a machine was last marked with, by uid. */
  readonly marked: ReadonlyMap<string, string>
  /** Machines whose mark is so old that it is made again where somebody has written over it, by uid. */
  readonly overdue: ReadonlySet<string>
  /** The version of a machine, as the copy has it, at which it was last looked at afresh, by uid. */
  readonly handled: ReadonlyMap<string, string>
}

/** Everything one plan is made from. Plain data: any case is a fixture. */
export interface World {
  /** Undefined while nothing may be judged. */
  readonly watched: Watched | undefined
  readonly hosts: readonly Host[]
  readonly machines: readonly VirtualMachine[]
  readonly pools: readonly StoragePool[]
  readonly evidence: readonly FenceEvidence[]
  readonly tries: ReadonlyMap<string, Tries>
  readonly leader: { readonly name: string; readonly epoch: number }
  /** Share of the hosts, in percent, of which so many may look lost that it is probably us. At most 50 counts. */
  readonly brakePercent: number
  /** How long a lease must be silent before its host is lost, ms. */
  readonly durationMs: number
  /** After this long a host may be lost, ms: the brake counts it. */
  readonly suspectMs: number
}

/** What a machine is marked with while its host is lost, or one that is being deleted while its host's agent is silent. */
export interface Mark {
  readonly phase: Phase
  readonly reason: LossReason | 'AgentSilent'
  readonly message: string
  /** What it says, without the time since when: it is not written again for that. */
  readonly key: string
}

/** The next safe steps, as data. */
export type Action =
  | { readonly do: 'mark'; readonly machines: readonly { readonly vm: VirtualMachine; readonly as: Mark }[] }
  /** Machines that never were launched, or have ended, and are tied to nothing: they need no evidence. */
  | { readonly do: 'giveUp'; readonly machines: readonly VirtualMachine[]; readonly why: GivenUp }
  | { readonly do: 'refuseClaim'; readonly claim: FenceEvidence; readonly why: string }
  | { readonly do: 'askVotes'; readonly lease: Lease; readonly facts: HostLeaseFacts }
  | {
      readonly do: 'runCommand'
      readonly lease: Lease
      readonly command: readonly string[]
      readonly timeoutMs: number
    }
  | { readonly do: 'takeLease'; readonly lease: Lease; readonly evidence: EvidenceSpec }
  | { readonly do: 'storeEvidence'; readonly evidence: EvidenceSpec }
  | { readonly do: 'takeMachines'; readonly evidence: string; readonly machines: readonly VirtualMachine[] }
  | { readonly do: 'deleteLease'; readonly lease: Lease }

export interface Happening {
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  readonly message: string
}

export interface HostPlan {
  /** The conditions this controller owns, as they should be; those that are not named stay. */
  readonly conditions: readonly ConditionFact[]
  /** At most one: each has a pass of its own. */
  readonly actions: readonly Action[]
}
