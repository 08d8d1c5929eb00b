import { describe, expect, test } from 'vitest'
import { answerConsent, answerLost, storeWord, votePassed } from '../../../src/controllers/guard/answer.ts'
import { holdUntil } from '../../../src/controllers/guard/hold.ts'
import { firstTryMs, planGuard } from '../../../src/controllers/guard/plan.ts'
import type { GuardState, PeerWord } from '../../../src/controllers/guard/state.ts'

const never = Number.NEGATIVE_INFINITY
const promise = { members: ['a', 'b', 'c'], deadlineMs: 6_000, suspended: false }
const answered = (at: number) => ({ startedAt: at, endedAt: at, answered: true })
const unanswered = (at: number) => ({ startedAt: at - 1_000, endedAt: at, answered: false })

/** Renewed at 0, answered then. */
const state = (more: Partial<GuardState> = {}): GuardState => ({
  ...{ host: 'a', startedAt: 0, renewedAt: 0, promises: [promise], taken: undefined, attempt: answered(0) },
  ...{ retryAt: 0, answers: new Map(), askedAt: undefined, stopping: false, gone: false },
  ...more,
})
const plan = (now: number, more: Partial<GuardState> = {}, selfFence = true) =>
  planGuard(state(more), now, { selfFence, renewMs: 3_000 })
const answers = (words: Readonly<Record<string, [PeerWord['word'], number]>>) =>
  new Map(Object.entries(words).map(([name, [word, askedAt]]) => [name, { word, askedAt }]))

describe('a guard', () => {
  test('renews each interval while it is answered, and sooner once it is not', () => {
    expect(plan(2_999)).toMatchObject({ standing: 'held', renew: false, ask: false, stop: false })
    expect(plan(3_000)).toMatchObject({ renew: true, ask: false })
    expect(plan(2_000, { attempt: unanswered(1_500), retryAt: 2_000 })).toMatchObject({
      renew: true,
      ask: true,
    })
    expect(plan(1_999, { attempt: unanswered(1_500), retryAt: 2_000 })).toMatchObject({ renew: false })
    const underWay = { startedAt: 3_000, answered: false }
    expect(plan(3_100, { attempt: underWay })).toMatchObject({ renew: false, ask: false })
    expect(plan(3_700, { attempt: underWay })).toMatchObject({ renew: false, ask: true })
  })

  test('stops machines at its deadline, and tries again only once they are gone', () => {
    const failing = { attempt: unanswered(5_900) }
    expect(plan(5_999, failing)).toMatchObject({ standing: 'held', stopAt: 6_000, stop: false, pet: true })
    expect(plan(6_000, failing)).toMatchObject({ standing: 'stopping', stop: true, renew: false, pet: false })
    const stopping = { ...failing, stopping: true }
    expect(plan(6_100, stopping)).toMatchObject({ standing: 'stopping', renew: false })
    expect(plan(6_100, { ...stopping, gone: true })).toMatchObject({
      ...{ standing: 'stopped', stop: true, renew: true, pet: true },
    })
  })

  test('holds over its deadline while half of the hosts, itself among them, have lost the store too', () => {
    const failing = { attempt: unanswered(6_900) }
    const lost = { ...failing, answers: answers({ b: ['lost', 5_500] }) }
    expect(plan(7_000, lost)).toMatchObject({ standing: 'holding', stopAt: 7_500, stop: false, renew: true })
    expect(plan(7_500, lost)).toMatchObject({ standing: 'stopping' })
    const four = { ...lost, promises: [{ ...promise, members: ['a', 'b', 'c', 'd'] }] }
    expect(plan(7_000, four)).toMatchObject({ standing: 'holding' })
    const five = { ...lost, promises: [{ ...promise, members: ['a', 'b', 'c', 'd', 'e'] }] }
    expect(plan(7_000, five)).toMatchObject({ standing: 'stopping' })
  })

  test('holds no longer once one that answers has the store', () => {
    const mixed = answers({ b: ['lost', 6_000], c: ['have', 6_000] })
    expect(plan(7_000, { attempt: unanswered(6_900), answers: mixed })).toMatchObject({
      standing: 'stopping',
    })
    const unsure = answers({ b: ['lost', 6_000], c: ['undecided', 6_000] })
    expect(plan(7_000, { attempt: unanswered(6_900), answers: unsure })).toMatchObject({
      standing: 'holding',
    })
  })

  test('does not begin to hold again once it has begun to stop machines', () => {
    const late = { attempt: unanswered(6_900), stopping: true, answers: answers({ b: ['lost', 6_900] }) }
    expect(plan(7_000, late)).toMatchObject({ standing: 'stopping' })
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
    const failing = { attempt: unanswered(60_000) }
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
    const fresh = { renewedAt: undefined, promises: [], attempt: undefined, startedAt: 100 }
    expect(plan(100, fresh)).toMatchObject({ standing: 'starting', renew: true, stopAt: 100 + firstTryMs })
    expect(plan(100 + firstTryMs, fresh)).toMatchObject({ standing: 'stopping' })
  })

  test('without self-fencing stops nothing, and goes on trying', () => {
    expect(plan(60_000, { attempt: unanswered(60_000) }, false)).toMatchObject({
      ...{ standing: 'lost', stop: false, renew: true },
    })
    expect(plan(1_000, {}, false).stopAt).toBeUndefined()
  })
})

describe('a hold', () => {
  test('alone or of two lasts no longer than an answer would, and ends when another has the store', () => {
    const two = { host: 'a', promises: [{ ...promise, members: ['a', 'b'] }] }
    expect(holdUntil({ ...two, answers: new Map() }, 100)).toBe(2_100)
    expect(holdUntil({ ...two, answers: answers({ b: ['have', 50] }) }, 100)).toBe(never)
    expect(holdUntil({ ...two, promises: [], answers: new Map() }, 100)).toBe(never)
  })

  test('counts only members, each once, and itself only where it is one', () => {
    const strangers = answers({ x: ['lost', 0], y: ['lost', 0] })
    expect(holdUntil({ host: 'a', promises: [promise], answers: strangers }, 100)).toBe(never)
    const others = { host: 'a', promises: [{ ...promise, members: ['b', 'c'] }] }
    expect(holdUntil({ ...others, answers: new Map() }, 100)).toBe(never)
    expect(holdUntil({ ...others, answers: answers({ b: ['lost', 0] }) }, 100)).toBe(2_000)
  })
})

describe('what a guard says', () => {
  const said = { lostAt: never, consentedAt: never }

  test('of the store', () => {
    expect(storeWord(state(), 500)).toBe('have')
    expect(storeWord(state(), 1_500)).toBe('try')
    expect(storeWord(state({ attempt: unanswered(1_400) }), 1_500)).toBe('lost')
    expect(storeWord(state(), 6_000)).toBe('lost')
    expect(storeWord(state({ taken: 'fenced' }), 9_000)).toBe('have')
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
