import type { HostPromise } from '../../host/guard-file.ts'

/** What a guard says when it is asked whether it has lost the store. `undecided` counts for neither. */
export type StoreWord = 'lost' | 'have' | 'undecided'

export interface PeerWord {
  readonly word: StoreWord
  /** When the question was sent, ms of our clock. */
  readonly askedAt: number
}

/** The last try to renew the lease. */
export interface Attempt {
  readonly startedAt: number
  /** Absent while it is under way. */
  readonly endedAt?: number
  /** Whether the store has answered; what it answered is in `renewedAt` and `taken`. */
  readonly answered: boolean
}

/** All that a guard's decisions depend on. Times are ms of one clock. */
export interface GuardState {
  readonly host: string
  readonly startedAt: number
  /** When the last renewal that succeeded was sent, by us or by the guard before us. */
  readonly renewedAt: number | undefined
  /** Everything that the lease may say: the last that surely was written, and what was sent since. */
  readonly promises: readonly HostPromise[]
  /** Who else the store said has the lease. */
  readonly taken: string | undefined
  readonly attempt: Attempt | undefined
  /** No try before this. */
  readonly retryAt: number
  readonly answers: ReadonlyMap<string, PeerWord>
  readonly askedAt: number | undefined
  /** Machines are being stopped, or have been, since the lease was last held. */
  readonly stopping: boolean
  /** Since then all of them were proven gone. */
  readonly gone: boolean
}

/** Holding the lease allows machines to run until then; `undefined` where it was never held. */
export function heldUntil({ renewedAt, promises }: Pick<GuardState, 'renewedAt' | 'promises'>) {
  if (renewedAt === undefined || promises.length === 0) return undefined
  return renewedAt + Math.min(...promises.map(({ deadlineMs }) => deadlineMs))
}

export function isHeld(state: GuardState, now: number): boolean {
  return state.taken === undefined && !state.stopping && now < (heldUntil(state) ?? Number.NEGATIVE_INFINITY)
}

/** A try that takes longer than this is taken for one that gets no answer, ms. */
export const lateMs = 700

/** Whether the last try got no answer, or the one under way is late. */
export function isFailing({ attempt }: Pick<GuardState, 'attempt'>, now: number): boolean {
  if (attempt === undefined) return false
  if (attempt.endedAt !== undefined) return !attempt.answered
  return now - attempt.startedAt >= lateMs
}
