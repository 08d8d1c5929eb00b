import { describe, expect, it } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { sha256Hex } from '../../src/auth/hash.ts'
import { presign } from '../../src/auth/sign.ts'
import { execCredential, makeToken, verifyToken } from '../../src/auth/token.ts'
import { bitFlips, credentials, identity, now, options, signed } from './fixture.ts'

const { token, expiresAt } = makeToken({ host: '127.0.0.1:7443', credentials, now })

describe('bearer tokens', () => {
  it('are good for 15 minutes, for any request', () => {
    expect(expiresAt - now).toBe(900_000)
    expect(verifyToken(token, options())).toEqual({ ok: true, identity })
    expect(verifyToken(token, { ...options(), now: expiresAt + 1 })).toMatchObject({ code: 'ExpiredToken' })
    const headers = { authorization: `Bearer ${token}` }
    const request = { method: 'PUT', rawUrl: '/x', headers, bodySha256: sha256Hex('x') }
    expect(authenticate(request, options())).toEqual({ ok: true, identity })
    expect(authenticate(signed(), options())).toEqual({ ok: true, identity })
  })

  it('are refused when a single bit changes', () => {
    const good = [...bitFlips(token)].filter((one) => verifyToken(one, options()).ok)
    expect(good).toEqual([])
  })

  it('cannot be made from a presigned URL of something else', () => {
    const rest = { credentials, now, region: 'local', service: 'plasmavmc', expiresSeconds: 60 }
    for (const path of ['/apis/x', '/plasmavmc-v1/token?a=1', '/plasmavmc-v1//token']) {
      const url = presign({ url: new URL(`https://h${path}`), ...rest })
      const forged = `plasmavmc-v1.${Buffer.from(url.href).toString('base64url')}`
      expect(verifyToken(forged, options())).toMatchObject({ ok: false, code: 'InvalidToken' })
    }
  })

  it('are refused without throwing, whatever they are', () => {
    for (const text of ['', 'x', 'plasmavmc-v1.', 'plasmavmc-v1.!!', `plasmavmc-v1.${'A'.repeat(9999)}`]) {
      expect(verifyToken(text, options())).toMatchObject({ ok: false, code: 'InvalidToken' })
    }
  })
})

describe('ExecCredential', () => {
  it('answers in the version asked for', () => {
    const apiVersion = 'client.authentication.k8s.io/v1beta1'
    expect(execCredential('t', now, JSON.stringify({ apiVersion }))).toMatchObject({ apiVersion })
    expect(execCredential('t', now)).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      spec: {},
      status: { token: 't', expirationTimestamp: '2026-01-02T03:04:05Z' },
    })
  })

  it('refuses other versions', () => {
    for (const info of ['{"apiVersion":"client.authentication.k8s.io/v1alpha1"}', '{', 'null']) {
      expect(() => execCredential('t', now, info)).toThrow(/KUBERNETES_EXEC_INFO/)
    }
  })
})
