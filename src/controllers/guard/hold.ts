import { type Rules, rules } from './rules.ts'
import type { GuardState } from './state.ts'

type Known = Pick<GuardState, 'host' | 'promises' | 'lost'>

/**
 * Until when machines may run on although the lease is not renewed, because at least half of the hosts have lost the
 * store as well; -Infinity where they may not. Whatever the lease may say must allow it. That another has the store, or
 * what one that has lost it says next, ends no hold: who said "lost" consents to nothing for long enough.
 */
export function holdUntil(state: Known, now: number, { answerGoodMs }: Rules = rules): number {
  if (state.promises.length === 0) return Number.NEGATIVE_INFINITY
  return Math.min(...state.promises.map(({ members }) => byMembers(members, state, now, answerGoodMs)))
}

function byMembers(
  members: readonly string[],
  { host, lost }: Known,
  now: number,
  answerGoodMs: number,
): number {
  const others = new Set(members.filter((name) => name !== host))
  const needed = Math.ceil(members.length / 2) - (others.size < members.length ? 1 : 0)
  // Where nobody else is needed it lasts no longer either, so that it ends when this guard does.
  if (needed <= 0) return now + answerGoodMs
  const ends = [...others]
    .map((name) => (lost.get(name) ?? Number.NEGATIVE_INFINITY) + answerGoodMs)
    .filter((end) => end > now)
    .sort((a, b) => b - a)
  return ends[needed - 1] ?? Number.NEGATIVE_INFINITY
}
