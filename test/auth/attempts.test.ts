import { expect, it } from 'vitest'
import { FailedAttempts } from '../../src/auth/attempts.ts'
import { authenticate } from '../../src/auth/authenticate.ts'
import { makeToken } from '../../src/auth/token.ts'
import { credentials, now, options, signed } from './fixture.ts'

const key = credentials.accessKeyId

/** Fails until it is told to wait. @returns how often it could */
function exhaust(attempts: FailedAttempts, address: string, id = key, at = now): number {
  for (let i = 0; ; i += 1) {
    if (attempts.waitMs(address, id, at) > 0 || i > 1000) return i
    attempts.failed(address, id, at)
  }
}

it('lets twenty attempts fail in a row, then one a second', () => {
  const attempts = new FailedAttempts()
  expect(exhaust(attempts, '10.0.0.1')).toBe(20)
  expect(attempts.waitMs('10.0.0.1', key, now)).toBe(1000)
  expect(attempts.waitMs('10.0.0.1', key, now + 999)).toBe(1)
  expect(exhaust(attempts, '10.0.0.1', key, now + 1000)).toBe(1)
  expect(exhaust(attempts, '10.0.0.1', key, now + 4500)).toBe(3)
  expect(exhaust(attempts, '10.0.0.1', key, now + 600_000)).toBe(20)
})

it('lets as many fail as it is told to', () => {
  expect(exhaust(new FailedAttempts(5), '10.0.0.1')).toBe(5)
})

it('holds up nobody at other addresses, and no other key at the same one', () => {
  const attempts = new FailedAttempts()
  exhaust(attempts, '10.0.0.1')
  for (const [address, id] of [
    ['10.0.0.2', key],
    ['10.0.0.1', 'PVMCOTHER'],
    ['2001:db8::1', key],
  ] as const)
    expect(attempts.waitMs(address, id, now)).toBe(0)
})

it.each([
  ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', '2001:db8:1:3::1'],
  ['2001:db8::1', '2001:db8:0:0:5::', '2001:db8:0:1::'],
  ['::ffff:10.0.0.1', '10.0.0.1', '10.0.0.2'],
  ['fe80::1%eth0', 'fe80::2', 'fe81::1'],
])('takes %s and %s for one place, and %s for another', (one, same, other) => {
  const attempts = new FailedAttempts()
  exhaust(attempts, one)
  expect([attempts.waitMs(same, key, now) > 0, attempts.waitMs(other, key, now)]).toEqual([true, 0])
})

it('is not made to forget one key by naming many, and stays small', () => {
  const attempts = new FailedAttempts()
  exhaust(attempts, '10.0.0.1')
  const letIn = Array.from({ length: 10_000 }, (_, i) => exhaust(attempts, '10.0.0.1', `PVMC${i}`))
  expect(letIn.reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(65 * 20)
  expect(attempts.waitMs('10.0.0.1', key, now)).toBe(1000)
  // Another day the place is free again for keys that were never named.
  expect(exhaust(attempts, '10.0.0.1', 'PVMCNEW', now + 60_000)).toBe(20)
})

it('forgives nothing when the clock goes back, and goes on counting', () => {
  const attempts = new FailedAttempts()
  exhaust(attempts, '10.0.0.1')
  expect(attempts.waitMs('10.0.0.1', key, now - 3_600_000)).toBe(1000)
  expect(attempts.waitMs('10.0.0.1', key, now - 3_599_000)).toBe(0)
})

it('counts bad signatures and bad tokens, and nothing that was no guess', () => {
  const attempts = new FailedAttempts()
  const given = { ...options(), attempts }
  const from = (address: string) => ({
    good: () => authenticate({ ...signed(), address }, given),
    bad: () => authenticate({ ...signed({ secretAccessKey: 'wrong' }), address }, given),
    late: () => authenticate({ ...signed({ now: now - 600_000, secretAccessKey: 'wrong' }), address }, given),
    unsigned: () => authenticate({ ...signed(), headers: { host: 'h' }, address }, given),
    token: () => {
      const { token } = makeToken({
        host: 'h',
        credentials: { ...credentials, secretAccessKey: 'wrong' },
        now,
      })
      return authenticate({ ...signed(), headers: { authorization: `Bearer ${token}` }, address }, given)
    },
  })
  const one = from('10.0.0.1')
  for (let i = 0; i < 50; i += 1) {
    expect(one.late()).toMatchObject({ code: 'RequestTimeTooSkewed' })
    expect(one.unsigned()).toMatchObject({ code: 'MissingAuthenticationToken' })
    expect(one.good()).toMatchObject({ ok: true })
  }
  for (let i = 0; i < 10; i += 1) {
    expect(one.bad()).toMatchObject({ code: 'SignatureDoesNotMatch' })
    expect(one.token()).toMatchObject({ code: 'SignatureDoesNotMatch' })
  }
  for (const act of [one.bad, one.token, one.good])
    expect(act()).toMatchObject({ ok: false, code: 'Throttling', retryAfterSeconds: 1 })
  expect(from('10.0.0.2').good()).toMatchObject({ ok: true })
})
