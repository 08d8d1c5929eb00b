import { describe, expect, it } from 'vitest'
import { impersonated, impersonationTargets } from '../../src/auth/impersonation.ts'
import { verifyRequest } from '../../src/auth/verify.ts'
import { options, signed } from './fixture.ts'

describe('headers of impersonation', () => {
  it('name a user with groups, and what one needs for it', () => {
    const who = impersonated([
      ['impersonate-user', 'bob'],
      ['impersonate-group', 'ops'],
      ['impersonate-group', 'dev'],
    ])
    expect(who).toEqual({ name: 'bob', groups: ['ops', 'dev', 'system:authenticated'] })
    expect(impersonationTargets(who ?? { name: '', groups: [] })).toEqual([
      { group: '', resource: 'users', name: 'bob' },
      { group: '', resource: 'groups', name: 'ops' },
      { group: '', resource: 'groups', name: 'dev' },
    ])
    expect(impersonationTargets({ name: 'system:serviceaccount:n:bot', groups: [] })).toEqual([
      { group: '', resource: 'serviceaccounts', namespace: 'n', name: 'bot' },
    ])
    expect(impersonated([['accept', '*/*']])).toBeUndefined()
  })

  it.each([
    ['groups without a user', [['impersonate-group', 'ops']]],
    [
      'two users',
      [
        ['impersonate-user', 'a'],
        ['impersonate-user', 'b'],
      ],
    ],
    ['nobody', [['impersonate-user', '']]],
    [
      'an uid',
      [
        ['impersonate-user', 'a'],
        ['impersonate-uid', '1'],
      ],
    ],
    [
      'extras',
      [
        ['impersonate-user', 'a'],
        ['impersonate-extra-x', '1'],
      ],
    ],
    ['a long name', [['impersonate-user', 'a'.repeat(254)]]],
  ] as const)('refuse %s', (_, pairs) => {
    expect(() => impersonated(pairs)).toThrow(/impersonate-/)
  })

  it('count only where they are signed', () => {
    const request = signed({ headers: { 'impersonate-user': 'bob', 'content-type': 'application/json' } })
    expect(verifyRequest(request, options())).toMatchObject({ ok: true })
    const later = signed({ headers: { 'content-type': 'application/json' } })
    const headers = { ...later.headers, 'impersonate-user': 'bob' }
    expect(verifyRequest({ ...later, headers }, options())).toMatchObject({
      ...{ ok: false, code: 'IncompleteSignature', message: expect.stringContaining('impersonate-user') },
    })
    const other = { ...request.headers, 'impersonate-user': 'alice' }
    expect(verifyRequest({ ...request, headers: other }, options())).toMatchObject({
      code: 'SignatureDoesNotMatch',
    })
  })
})
