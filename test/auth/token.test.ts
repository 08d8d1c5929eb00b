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

  it('that are bound to a cluster are good there alone, by whatever name it is reached', () => {
    const here = { ...options(), clusterId: 'a' }
    for (const host of ['127.0.0.1:7443', 'vms.example.com', '[::1]:1', 'balancer:443']) {
      const bound = makeToken({ host, credentials, now, clusterId: 'a' })
      expect(verifyToken(bound.token, here)).toEqual({ ok: true, identity })
      for (const elsewhere of [{ ...here, clusterId: 'b' }, options()]) {
        const verdict = verifyToken(bound.token, elsewhere)
        expect(verdict).toMatchObject({ ok: false, message: expect.stringMatching(/plasmavmc kubeconfig/) })
      }
      expect(verifyToken(bound.token, { ...here, now: expiresAt + 1 })).toMatchObject({
        code: 'ExpiredToken',
      })
    }
    // Unbound ones are good wherever their key is known.
    expect(verifyToken(token, here)).toEqual({ ok: true, identity })
  })

  it('can not be freed from their cluster, nor be given to another', () => {
    const bound = makeToken({ host: 'h', credentials, now, clusterId: 'a' })
    const url = Buffer.from(bound.token.slice('plasmavmc-v1.'.length), 'base64url').toString()
    expect(url).not.toContain('cluster=')
    for (const [from, to] of [
      ['host%3Bx-plasmavmc-cluster', 'host'],
      ['host%3Bx-plasmavmc-cluster', 'host%3Bx-plasmavmc-clusters'],
      ['x-plasmavmc-cluster', 'X-Plasmavmc-Cluster'],
    ] as const) {
      const forged = `plasmavmc-v1.${Buffer.from(url.replace(from, to)).toString('base64url')}`
      for (const clusterId of ['a', 'b'])
        expect(verifyToken(forged, { ...options(), clusterId }).ok, to).toBe(false)
      expect(verifyToken(forged, options()).ok, to).toBe(false)
    }
    const here = { ...options(), clusterId: 'a' }
    expect([...bitFlips(bound.token)].filter((one) => verifyToken(one, here).ok)).toEqual([])
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
