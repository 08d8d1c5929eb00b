import type { FenceResult } from '../../host/guard-fence.ts'
import type { GuardRecord, HostPromise } from '../../host/guard-file.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import type { HostLeaseFacts } from '../../resources/host-lease.ts'
import type { LeaseContender, LeaseFacts, LeaseTerms, OwnLease } from '../../runtime/lease.ts'
import type { StoreWord } from './state.ts'

/** The cluster as the store has it. */
export interface ClusterView {
  /** Why this host may not touch its lease yet; absent where it may. */
  readonly unclaimed?: string
  /** Every host, with where its guard answers, this one among them. */
  readonly members: ReadonlyMap<string, string | undefined>
  /** Until when (RFC 3339) this host is in maintenance; absent where it is not. */
  readonly maintenance?: string
}

/** What a guard tells the agent and the guard after it, without what the process itself is. */
export type GuardReport = Pick<
  GuardRecord,
  | 'epoch'
  | 'held'
  | 'sentAt'
  | 'deadlineMs'
  | 'stopAt'
  | 'fencing'
  | 'promises'
  | 'peers'
  | 'why'
  | 'standing'
  | 'waits'
  | 'agent'
>

/** What a write of the lease says, as far as it is asked for once it has succeeded. */
export interface LeaseWords {
  readonly promise: HostPromise
  readonly agent: HostLeaseFacts['agent']
}

export interface GuardDeps {
  readonly host: string
  readonly terms: LeaseTerms
  readonly clock: Clock
  readonly log: Log
  /** What is promised in the lease as long as this process lives. */
  readonly facts: Pick<HostLeaseFacts, 'stopMs' | 'selfFence' | 'peer' | 'bootId'>
  /** What a guard of this boot has told before. */
  readonly inherited?: GuardReport | undefined
  /** Our identity as the holder of the lease. */
  readonly identity: string
  readonly contender: (hooks: {
    readonly facts: () => LeaseFacts
    readonly own: OwnLease
  }) => Pick<LeaseContender, 'attempt' | 'release'>
  readonly look: () => Promise<ClusterView>
  /** Asks another host whether it has lost the store. */
  readonly ask: (
    host: string,
    address: string,
  ) => Promise<{ readonly word: StoreWord; readonly askedAt: number } | undefined>
  readonly machines: { stop(): Promise<FenceResult>; running(): Promise<number> }
  /** @throws where it could not be told */
  readonly publish: (report: GuardReport) => void
  readonly agentLives: () => boolean
  readonly pet?: () => void
  /** Whether the folder is gone in which everything of this host's machines lies. */
  readonly homeless?: () => boolean
}

export type { HostPromise }
