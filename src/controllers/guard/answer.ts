import { mostAgree } from '../../resources/host-lease.ts'
import { type Rules, rules } from './rules.ts'
import { type GuardState, isFailing, isHeld, type StoreWord } from './state.ts'

/** What a guard has told others; a new one takes it that the one before has told both just then. */
export interface Said {
  /** When it last told anybody that it has lost the store. */
  readonly lostAt: number
  /** When it last consented that a lease be taken. */
  readonly consentedAt: number
}

/** How long a renewal proves that the store is there, ms. */
const freshMs = 1_000

/** Whether this host has lost the store, as far as it knows; `try` where it has to try to find out. */
export function storeWord(state: GuardState, now: number): 'lost' | 'have' | 'try' {
  if (state.taken !== undefined) return 'have'
  if (state.replacedUntil !== undefined && now < state.replacedUntil) return 'lost'
  if (isFailing(state, now) || !isHeld(state, now)) return 'lost'
  return state.renewedAt !== undefined && now - state.renewedAt < freshMs ? 'have' : 'try'
}

/** The answer to "have you lost the store?", and what has been said once it is sent. */
export function answerLost(
  word: 'lost' | 'have' | 'try',
  said: Said,
  now: number,
  { quietMs }: Rules = rules,
): { readonly word: StoreWord; readonly said: Said } {
  if (word === 'have') return { word, said }
  if (word === 'try' || now - said.consentedAt < quietMs) return { word: 'undecided', said }
  return { word, said: { ...said, lostAt: now } }
}

/** The answer to "may the lease of `host` be taken?", and what has been said once it is sent. */
export function answerConsent(
  state: GuardState,
  { host, said, now }: { readonly host: string; readonly said: Said; readonly now: number },
  { quietMs }: Rules = rules,
): { readonly consent: boolean; readonly why: string; readonly said: Said } {
  const no = (why: string) => ({ consent: false, why, said })
  if (host === state.host) return no('it is this host')
  if (!isHeld(state, now)) return no('this host does not hold its own lease')
  if (now - said.lostAt < quietMs) return no('this host told another lately that it has lost the store')
  return { consent: true, why: 'this host holds its own lease', said: { ...said, consentedAt: now } }
}

export interface Vote {
  readonly host: string
  readonly consent: boolean
  /** When the question was sent, ms of the leader's clock. */
  readonly askedAt: number
}

/**
 * Whether more than half of the hosts that a lost one named in its lease agree, the lost one not among them. Counts
 * only what was asked less than `answerGoodMs` ago: ask after the lease has been silent for long enough, never before.
 */
export function votePassed(
  lease: { readonly host: string; readonly members: readonly string[] },
  votes: readonly Vote[],
  now: number,
  { answerGoodMs }: Rules = rules,
): boolean {
  const good = votes.filter(({ consent, askedAt }) => consent && now - askedAt < answerGoodMs)
  const consents = good.map(({ host }) => host)
  return mostAgree(lease.members, lease.host, consents)
}
