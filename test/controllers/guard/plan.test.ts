import { describe, expect, test } from 'vitest'
import { answerConsent, answerLost, storeWord, votePassed } from '../../../src/controllers/guard/answer.ts'
import { holdUntil } from '../../../src/controllers/guard/hold.ts'
import { firstTryMs, planGuard } from '../../../src/controllers/guard/plan.ts'
import {
  firstState,
  type GuardState,
  heard,
  promising,
  type StoreWord,
} from '../../../src/controllers/guard/state.ts'

const never = Number.NEGATIVE_INFINITY
const promise = { members: ['a', 'b', 'c'], deadlineMs: 6_000, suspended: false }
const failing = { failing: true }

/** Renewed at 0, answered then. */
const state = (more: Partial<GuardState> = {}): GuardState => ({
  ...{ ...firstState('a', 0), renewedAt: 0, promises: [promise] },
  ...more,
})
const plan = (now: number, more: Partial<GuardState> = {}, selfFence = true) =>
  planGuard(state(more), now, { selfFence, renewMs: 3_000 })
const lost = (words: Readonly<Record<string, number>>) => ({ lost: new Map(Object.entries(words)) })

describe('a guard', () => {
  test('renews each interval while it is answered, and sooner once it is not', () => {
    expect(plan(2_999)).toMatchObject({ standing: 'held', renew: false, ask: false, stop: false })
    expect(plan(3_000)).toMatchObject({ renew: true, ask: false })
    expect(plan(2_000, { ...failing, retryAt: 2_000 })).toMatchObject({ renew: true, ask: true })
    expect(plan(1_999, { ...failing, retryAt: 2_000 })).toMatchObject({ renew: false })
    expect(plan(3_100, { tryingSince: 3_000 })).toMatchObject({ renew: false, ask: false })
    expect(plan(3_700, { tryingSince: 3_000 })).toMatchObject({ renew: false, ask: true })
  })

  test('goes on asking while it tries again: a try that has just begun says nothing', () => {
    expect(plan(5_100, { ...failing, tryingSince: 5_000 })).toMatchObject({ renew: false, ask: true })
    expect(storeWord(state({ ...failing, tryingSince: 5_000 }), 5_100)).toBe('lost')
  })

  test('does not wait for a late try once another has the store', () => {
    const late = { ...failing, tryingSince: 5_000 }
    expect(plan(5_700, { ...late, storeSeenAt: 5_001 })).toMatchObject({ renew: true })
    expect(plan(5_699, { ...late, storeSeenAt: 5_001 })).toMatchObject({ renew: false })
    expect(plan(5_700, { ...late, storeSeenAt: 5_000 })).toMatchObject({ renew: false })
  })

  test('stops machines at its deadline, and tries again only once they are gone', () => {
    expect(plan(5_999, failing)).toMatchObject({ standing: 'held', stopAt: 6_000, stop: false, pet: true })
    expect(plan(6_000, failing)).toMatchObject({ standing: 'stopping', stop: true, renew: false, pet: false })
    const stopping = { ...failing, stopping: true }
    expect(plan(6_100, stopping)).toMatchObject({ standing: 'stopping', renew: false })
    expect(plan(6_100, { ...stopping, gone: true })).toMatchObject({
      ...{ standing: 'stopped', stop: true, renew: true, pet: true },
    })
  })

  test('holds over its deadline while half of the hosts, itself among them, have lost the store too', () => {
    const one = { ...failing, ...lost({ b: 5_500 }) }
    expect(plan(7_000, one)).toMatchObject({ standing: 'holding', stopAt: 7_500, stop: false, renew: true })
    expect(plan(7_500, one)).toMatchObject({ standing: 'stopping' })
    const four = { ...one, promises: [{ ...promise, members: ['a', 'b', 'c', 'd'] }] }
    expect(plan(7_000, four)).toMatchObject({ standing: 'holding' })
    const five = { ...one, promises: [{ ...promise, members: ['a', 'b', 'c', 'd', 'e'] }] }
    expect(plan(7_000, five)).toMatchObject({ standing: 'stopping' })
  })

  test('holds for as long as an answer is good, whatever is said after it: who gave it consents to nothing', () => {
    const hear = (words: readonly [string, StoreWord, number][]) =>
      words.reduce((known, [host, word, askedAt]) => heard(known, host, { word, askedAt }), state(failing))
    const known = hear([
      ['b', 'lost', 6_000],
      ['b', 'have', 6_500],
      ['b', 'undecided', 6_600],
      ['b', 'lost', 5_000],
      ['c', 'have', 6_500],
    ])
    expect(plan(7_000, known)).toMatchObject({ standing: 'holding', stopAt: 8_000 })
    expect(plan(8_000, known)).toMatchObject({ standing: 'stopping' })
  })

  test('goes on holding as the guard before it did, as long as the lease can say nothing else', () => {
    const before = state({ ...failing, heldBefore: 7_500 })
    expect(plan(7_000, before)).toMatchObject({ standing: 'holding', stopAt: 7_500, ask: true })
    expect(plan(7_500, before)).toMatchObject({ standing: 'stopping' })
    expect(plan(7_000, promising(before, promise))).toMatchObject({ standing: 'holding' })
    const other = promising(before, { ...promise, members: ['a', 'b', 'c', 'd', 'e'] })
    expect(plan(7_000, other)).toMatchObject({ standing: 'stopping' })
    expect(plan(7_000, { ...before, stopping: true })).toMatchObject({ standing: 'stopping' })
  })

  test('does not begin to hold again once it has begun to stop machines', () => {
    expect(plan(7_000, { ...failing, stopping: true, ...lost({ b: 6_900 }) })).toMatchObject({
      standing: 'stopping',
    })
  })

  test('stops machines at once when the lease was taken, in maintenance and without a promise too', () => {
    const suspended = [{ ...promise, suspended: true }]
    expect(plan(10, { taken: 'fenced', promises: suspended })).toMatchObject({
      standing: 'stopping',
      stop: true,
    })
    expect(plan(10, { taken: 'fenced' }, false)).toMatchObject({ standing: 'stopping', stop: true })
  })

  test('in maintenance stops nothing, as long as all that the lease may say is that', () => {
    const suspended = { ...promise, suspended: true }
    expect(plan(60_000, { ...failing, promises: [suspended] })).toMatchObject({
      ...{ standing: 'suspended', stop: false, renew: true, pet: true },
    })
    expect(plan(60_000, { ...failing, promises: [suspended] }).stopAt).toBeUndefined()
    expect(plan(60_000, { ...failing, promises: [suspended, promise] })).toMatchObject({
      standing: 'stopping',
    })
  })

  test('goes by the shortest deadline and every list of members that the lease may say', () => {
    const short = { ...promise, deadlineMs: 4_000 }
    expect(plan(4_000, { promises: [promise, short] })).toMatchObject({ standing: 'stopping' })
    const alone = { ...promise, members: ['a'] }
    expect(plan(7_000, { promises: [alone] })).toMatchObject({ standing: 'holding' })
    expect(plan(7_000, { promises: [alone, promise] })).toMatchObject({ standing: 'stopping' })
  })

  test('that knows nothing has a moment for its first try', () => {
    const fresh = { renewedAt: undefined, promises: [], startedAt: 100 }
    expect(plan(100, fresh)).toMatchObject({ standing: 'starting', renew: true, stopAt: 100 + firstTryMs })
    expect(plan(100 + firstTryMs, fresh)).toMatchObject({ standing: 'stopping' })
  })

  test('without self-fencing stops nothing, and goes on trying', () => {
    expect(plan(60_000, failing, false)).toMatchObject({
      ...{ standing: 'lost', stop: false, renew: true },
    })
    expect(plan(1_000, {}, false).stopAt).toBeUndefined()
  })
})

describe('a hold', () => {
  test('alone or of two lasts no longer than an answer would', () => {
    const two = { host: 'a', promises: [{ ...promise, members: ['a', 'b'] }], ...lost({}) }
    expect(holdUntil(two, 100)).toBe(2_100)
    expect(holdUntil({ ...two, promises: [] }, 100)).toBe(never)
  })

  test('counts only members, each once, and itself only where it is one', () => {
    const strangers = lost({ x: 0, y: 0, a: 0 })
    expect(holdUntil({ host: 'a', promises: [promise], ...strangers }, 100)).toBe(never)
    const others = { host: 'a', promises: [{ ...promise, members: ['b', 'c'] }] }
    expect(holdUntil({ ...others, ...lost({}) }, 100)).toBe(never)
    expect(holdUntil({ ...others, ...lost({ b: 0 }) }, 100)).toBe(2_000)
    const twice = { host: 'a', promises: [{ ...promise, members: ['a', 'b', 'b', 'c', 'd', 'e'] }] }
    expect(holdUntil({ ...twice, ...lost({ b: 0 }) }, 100)).toBe(never)
  })
})

describe('what a guard says', () => {
  const said = { lostAt: never, consentedAt: never }

  test('of the store', () => {
    expect(storeWord(state(), 500)).toBe('have')
    expect(storeWord(state(), 1_500)).toBe('try')
    expect(storeWord(state(failing), 1_500)).toBe('lost')
    expect(storeWord(state(), 6_000)).toBe('lost')
    expect(storeWord(state({ taken: 'fenced' }), 9_000)).toBe('have')
    // In the one that took its place leases are renewed; the one that others know is lost.
    expect(storeWord(state({ replacedUntil: 501 }), 500)).toBe('lost')
    expect(storeWord(state({ replacedUntil: 500 }), 500)).toBe('have')
  })

  test('never that it is lost within 5 s of a consent', () => {
    const after = answerConsent(state(), { host: 'b', said, now: 1_000 })
    expect(after).toMatchObject({ consent: true, said: { consentedAt: 1_000 } })
    expect(answerLost('lost', after.said, 5_999)).toEqual({ word: 'undecided', said: after.said })
    expect(answerLost('lost', after.said, 6_000)).toMatchObject({ word: 'lost', said: { lostAt: 6_000 } })
  })

  test('never consents within 5 s of having said so, without its own lease, or to its own loss', () => {
    const { said: after } = answerLost('lost', said, 100)
    expect(answerConsent(state(), { host: 'b', said: after, now: 5_099 })).toMatchObject({ consent: false })
    expect(answerConsent(state(), { host: 'b', said: after, now: 5_100 })).toMatchObject({ consent: true })
    const no = { consent: false, said }
    expect(answerConsent(state(), { host: 'a', said, now: 100 })).toMatchObject(no)
    expect(answerConsent(state(), { host: 'b', said, now: 6_000 })).toMatchObject(no)
    expect(answerConsent(state({ taken: 'x' }), { host: 'b', said, now: 100 })).toMatchObject(no)
    expect(answerConsent(state({ stopping: true }), { host: 'b', said, now: 100 })).toMatchObject(no)
  })
})

test('a vote needs more than half of the members, not counting the lost one, asked lately, each once', () => {
  const lease = { host: 'a', members: ['a', 'b', 'c', 'd'] }
  const yes = (host: string, askedAt = 0) => ({ host, consent: true, askedAt })
  expect(votePassed(lease, [yes('b'), yes('c'), yes('d')], 1_999)).toBe(true)
  expect(votePassed(lease, [yes('b'), yes('c'), yes('d')], 2_000)).toBe(false)
  expect(votePassed(lease, [yes('b'), yes('c')], 0)).toBe(false)
  expect(votePassed(lease, [yes('b'), yes('c'), yes('c'), yes('a'), yes('x')], 0)).toBe(false)
  expect(votePassed(lease, [yes('b'), yes('c'), { ...yes('d'), consent: false }], 0)).toBe(false)
  expect(votePassed({ host: 'a', members: ['a', 'b'] }, [yes('b')], 0)).toBe(false)
  expect(votePassed({ host: 'a', members: [] }, [], 0)).toBe(false)
})
