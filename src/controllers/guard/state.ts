import type { GuardRecord, HostPromise } from '../../host/guard-file.ts'

/** What a guard says when it is asked whether it has lost the store. `undecided` counts for neither. */
export type StoreWord = 'lost' | 'have' | 'undecided'

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
  /** When the try to renew that is under way began. */
  readonly tryingSince: number | undefined
  /** No try before this. */
  readonly retryAt: number
  /** The last try got no answer: one that ended, or one that was given up for another. */
  readonly failing: boolean
  /** When those were last asked, at their latest, who answered that they have lost the store. */
  readonly lost: ReadonlyMap<string, number>
  /** When the first was asked, since a try last ended, who answered that it has the store. */
  readonly storeSeenAt: number | undefined
  /** Until when others are told that the store is lost, although leases are renewed in the one that took its place. */
  readonly replacedUntil: number | undefined
  readonly askedAt: number | undefined
  /** Until when the guard before this one held, by what it was answered and as long as the lease says what it said then. */
  readonly heldBefore: number | undefined
  /** Machines are being stopped, or have been, since the lease was last held. */
  readonly stopping: boolean
  /** Since then all of them were proven gone. */
  readonly gone: boolean
}

/** The state of a guard that starts now, after one that has told this. */
export function firstState(
  host: string,
  now: number,
  told?: Pick<GuardRecord, 'held' | 'sentAt' | 'stopAt' | 'fencing' | 'promises'>,
): GuardState {
  return {
    ...{ host, startedAt: now, taken: undefined, tryingSince: undefined, retryAt: 0 },
    ...{ lost: new Map(), storeSeenAt: undefined, replacedUntil: undefined, askedAt: undefined },
    // An outage that the one before it was in goes on until a renewal succeeds, and so does its hold.
    failing: told?.held === false,
    heldBefore: told?.sentAt !== undefined && !told.fencing ? told.stopAt : undefined,
    ...{ gone: false, stopping: told?.fencing ?? false },
    renewedAt: told?.sentAt,
    promises: told?.promises ?? [],
  }
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

type Tries = Pick<GuardState, 'tryingSince' | 'failing'>

const isLate = ({ tryingSince }: Pick<GuardState, 'tryingSince'>, now: number) =>
  tryingSince !== undefined && now - tryingSince >= lateMs

/** Whether the last try got no answer, or the one under way is late. One that has just begun says nothing yet. */
export function isFailing(state: Tries, now: number): boolean {
  return state.failing || isLate(state, now)
}

/**
 * Whether the try under way is late and others have the store: it may wait on what was cut, where a new one gets
 * through. Only once: a store that is slow must not make one try end the other for ever.
 */
export function isOvertaken(state: Pick<GuardState, 'tryingSince' | 'storeSeenAt'>, now: number): boolean {
  const { tryingSince, storeSeenAt } = state
  return isLate(state, now) && storeSeenAt !== undefined && storeSeenAt > (tryingSince ?? now)
}

/** The state once the lease may say this as well. */
export function promising(state: GuardState, promise: HostPromise): GuardState {
  const text = JSON.stringify(promise)
  if (state.promises.some((one) => JSON.stringify(one) === text)) return state
  return { ...state, promises: [...state.promises, promise], heldBefore: undefined }
}

/**
 * The state once a store that was restored is taken as it is. Other guards come to that as much later as their last
 * renewals are younger than ours, and hold until then by what they are told: the store that they know is lost.
 */
export function replaced(
  state: GuardState,
  now: number,
  { deadlineMs, renewMs }: { readonly deadlineMs: number; readonly renewMs: number },
): GuardState {
  return { ...state, replacedUntil: now + deadlineMs + renewMs }
}

export interface PeerWord {
  readonly word: StoreWord
  /** When the question was sent, ms of our clock. */
  readonly askedAt: number
}

/** The state once another host has answered. */
export function heard(state: GuardState, host: string, { word, askedAt }: PeerWord): GuardState {
  const { lost } = state
  if (word === 'have') return { ...state, storeSeenAt: state.storeSeenAt ?? askedAt }
  if (word === 'undecided' || (lost.get(host) ?? Number.NEGATIVE_INFINITY) >= askedAt) return state
  return { ...state, lost: new Map(lost).set(host, askedAt) }
}
