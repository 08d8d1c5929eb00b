import { holdUntil } from './hold.ts'
import { type Rules, rules } from './rules.ts'
import { type GuardState, heldUntil, isFailing, isHeld, isOvertaken } from './state.ts'

/**
 * held: the lease is ours. starting: nothing is known yet. suspended: in maintenance. holding: the store is lost, to
 * others too. stopping, stopped: it is lost to us, machines are stopped. lost: likewise, and nothing is promised.
 */
export type Standing = 'held' | 'starting' | 'suspended' | 'holding' | 'stopping' | 'stopped' | 'lost'

export interface GuardPlan {
  readonly standing: Standing
  /** When machines must begin to be stopped unless something new is known; absent: not at all. */
  readonly stopAt?: number
  /** Try to renew the lease now, whatever try is under way. */
  readonly renew: boolean
  /** Ask the other hosts now whether they have lost the store. */
  readonly ask: boolean
  /** Stop machines that would be started elsewhere, and look whether they are gone. */
  readonly stop: boolean
  /** Keep the hardware watchdog from biting. */
  readonly pet: boolean
}

export interface PlanOptions {
  /** Whether this host promises to stop its machines when it is cut off. */
  readonly selfFence: boolean
  readonly renewMs: number
  /** What the lease says is not so any more, and others wait to hear it: it is renewed before it is due. */
  readonly news?: boolean
  readonly rules?: Rules
}

/** How long a guard that was told nothing by one before it may take for its first try, ms. */
export const firstTryMs = 2_000

/** What a guard does now. Pure; `now` is ms of the clock of `state`. */
export function planGuard(state: GuardState, now: number, options: PlanOptions): GuardPlan {
  const { standing, stopAt } = stand(state, now, options)
  const { tryingSince, renewedAt, taken } = state
  const mayTry = tryingSince === undefined || isOvertaken(state, now)
  const failing = isFailing(state, now)
  const rests = standing === 'held' && !failing && renewedAt !== undefined && !options.news
  const due = rests ? renewedAt + options.renewMs : 0
  const { askEveryMs } = options.rules ?? rules
  const mayAsk = state.askedAt === undefined || now - state.askedAt >= askEveryMs
  const stop = standing === 'stopping' || standing === 'stopped'
  return {
    standing,
    ...(stopAt !== undefined && { stopAt }),
    // Not before what has to be stopped is gone: once the lease is ours again, nobody counts on that any more.
    renew: standing !== 'stopping' && mayTry && now >= Math.max(due, state.retryAt),
    ask: taken === undefined && failing && mayAsk && (standing === 'held' || standing === 'holding'),
    stop,
    pet: standing !== 'stopping',
  }
}

function stand(
  state: GuardState,
  now: number,
  { selfFence, rules: given = rules }: PlanOptions,
): { readonly standing: Standing; readonly stopAt?: number } {
  const { promises, taken, stopping, gone, startedAt, renewedAt } = state
  const { heldBefore = Number.NEGATIVE_INFINITY } = state
  const stop = { standing: gone ? ('stopped' as const) : ('stopping' as const), stopAt: now }
  // Whoever took it may start our machines, whatever we promised.
  if (taken !== undefined) return stop
  const until = heldUntil(state) ?? Number.NEGATIVE_INFINITY
  const held = isHeld(state, now)
  if (!selfFence) return { standing: held ? 'held' : 'lost' }
  if (stopping) return stop
  if (promises.length > 0 && promises.every(({ suspended }) => suspended))
    return { standing: held ? 'held' : 'suspended' }
  const hold = Math.max(holdUntil(state, now, given), heldBefore)
  if (held) return { standing: 'held', stopAt: Math.max(until, hold) }
  if (renewedAt === undefined && now < startedAt + firstTryMs)
    return { standing: 'starting', stopAt: startedAt + firstTryMs }
  return hold > now ? { standing: 'holding', stopAt: hold } : stop
}
