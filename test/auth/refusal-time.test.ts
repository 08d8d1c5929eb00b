import { expect, it } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { derivations } from '../../src/auth/signing-key.ts'
import { verifyRequest } from '../../src/auth/verify.ts'
import { credentials, identity, now, options, signed } from './fixture.ts'

const json = { 'content-type': 'application/json' }
const wrong = (accessKeyId: string, at = now) =>
  signed({ accessKeyId, secretAccessKey: 'x', headers: json, now: at })

/** How many signing keys one refusal costs. */
function costOf(request: ReturnType<typeof signed>, at = now): number {
  const before = derivations()
  expect(authenticate(request, { ...options(), now: at })).toMatchObject({ code: 'SignatureDoesNotMatch' })
  return derivations() - before
}

it('derives one signing key for each refusal: of a key in use, of one that is not, of an unknown one', () => {
  const day = 86_400_000
  const { accessKeyId } = credentials
  expect(authenticate(signed({ headers: json }), options())).toMatchObject({ ok: true })
  expect(costOf(wrong(accessKeyId))).toBe(1)
  expect(costOf(wrong(accessKeyId))).toBe(1)
  // Nothing was signed with it on that day.
  expect(costOf(wrong(accessKeyId, now + day), now + day)).toBe(1)
  for (const id of ['PVMCBBBBBBBBBBBBBBBB', 'PVMCBBBBBBBBBBBBBBBB', 'PVMCCCCCCCCCCCCCCCCC']) {
    expect(costOf(wrong(id))).toBe(1)
    expect(costOf(wrong(id, now + 2 * day), now + 2 * day)).toBe(1)
  }
})

it('says the same of all of them', () => {
  const disabled = { ...options({ disabled: true }) }
  const expired = { ...options({ expiresAt: now - 1 }) }
  const texts = [options(), disabled, expired].flatMap((known) =>
    [wrong(credentials.accessKeyId), wrong('PVMCBBBBBBBBBBBBBBBB')].map((request) =>
      JSON.stringify(authenticate(request, known)),
    ),
  )
  expect(new Set(texts).size).toBe(1)
  const right = signed({ headers: json })
  expect(authenticate(right, disabled)).toMatchObject({ code: 'InvalidClientTokenId' })
  expect(authenticate(right, expired)).toMatchObject({ code: 'ExpiredToken' })
})

it('takes about as long for an unknown key as for one in use', () => {
  const median = (request: ReturnType<typeof signed>) => {
    const times = Array.from({ length: 400 }, () => {
      const start = performance.now()
      authenticate(request, options())
      return performance.now() - start
    })
    return times.sort((a, b) => a - b)[times.length >> 1] ?? 0
  }
  expect(verifyRequest(signed({ headers: json }), options())).toEqual({ ok: true, identity })
  const requests = [wrong(credentials.accessKeyId), wrong('PVMCBBBBBBBBBBBBBBBB')] as const
  const ratios = Array.from({ length: 5 }, () => median(requests[0]) / median(requests[1]))
  const best = ratios.sort((a, b) => Math.abs(Math.log(a)) - Math.abs(Math.log(b)))[0] ?? 0
  expect(best).toBeGreaterThan(0.8)
  expect(best).toBeLessThan(1.25)
})
