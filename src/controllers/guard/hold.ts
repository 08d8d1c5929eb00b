import { type Rules, rules } from './rules.ts'
import type { GuardState, PeerWord } from './state.ts'

type Known = Pick<GuardState, 'host' | 'promises' | 'answers'>

/**
 * Until when machines may run on although the lease is not renewed, because at least half of the hosts have lost the
 * store as well; -Infinity where they may not. Whatever the lease may say must allow it.
 */
export function holdUntil(state: Known, now: number, { answerGoodMs }: Rules = rules): number {
  if (state.promises.length === 0) return Number.NEGATIVE_INFINITY
  return Math.min(...state.promises.map(({ members }) => byMembers(members, state, now, answerGoodMs)))
}

function byMembers(
  members: readonly string[],
  { host, answers }: Known,
  now: number,
  answerGoodMs: number,
): number {
  const others = members.filter((name) => name !== host)
  const expiry = (answer: PeerWord) => answer.askedAt + answerGoodMs
  const good = others
    .map((name) => answers.get(name))
    .filter((answer): answer is PeerWord => answer !== undefined && expiry(answer) > now)
  if (good.some(({ word }) => word === 'have')) return Number.NEGATIVE_INFINITY
  const needed = Math.ceil(members.length / 2) - (others.length < members.length ? 1 : 0)
  const ends = good
    .filter(({ word }) => word === 'lost')
    .map(expiry)
    .sort((a, b) => b - a)
  // Where nobody else is needed it lasts no longer either, so that it ends when this guard does.
  if (needed <= 0) return now + answerGoodMs
  return ends[needed - 1] ?? Number.NEGATIVE_INFINITY
}
