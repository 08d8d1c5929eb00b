import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'
import { authenticate } from '../../src/auth/authenticate.ts'
import { sha256Hex } from '../../src/auth/hash.ts'
import { Replays } from '../../src/auth/replays.ts'
import { presign } from '../../src/auth/sign.ts'
import { makeToken } from '../../src/auth/token.ts'
import { credentials, now, options, signed } from './fixture.ts'

const windowMs = 300_000
const nth = (n: number) => createHash('sha256').update(String(n)).digest('hex')
const one = (n: number, signedAt = now, accessKeyId = 'A') => ({ accessKeyId, signature: nth(n), signedAt })

it('lets a signature that may change something in once, as long as its date is good', () => {
  const given = { ...options(), replays: new Replays() }
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const request = signed({ method })
    expect(authenticate(request, given)).toMatchObject({ ok: true })
    for (const later of [0, 1000, windowMs])
      expect(authenticate(request, { ...given, now: now + later })).toMatchObject({
        code: 'SignatureReplayed',
      })
    expect(authenticate(request, { ...given, now: now + windowMs + 1 })).toMatchObject({
      code: 'RequestTimeTooSkewed',
    })
  }
})

it('also one whose header names and spaces were written in another way', () => {
  const given = { ...options(), replays: new Replays() }
  const request = signed({ headers: { 'x-a': 'b c' } })
  expect(authenticate(request, given)).toMatchObject({ ok: true })
  const headers = Object.entries(request.headers).map(([k, v]): [string, string] => [
    k.toUpperCase(),
    k === 'x-a' ? ' b   c ' : v,
  ])
  expect(authenticate({ ...request, headers: headers.reverse() }, given)).toMatchObject({
    code: 'SignatureReplayed',
  })
  expect(authenticate({ ...request, rawUrl: '/apis/x?a=1&b=2' }, given)).toMatchObject({
    code: 'SignatureReplayed',
  })
})

it('lets in what is signed again, and equal requests that a header tells apart', () => {
  const given = { ...options(), replays: new Replays() }
  expect(authenticate(signed(), given)).toMatchObject({ ok: true })
  expect(authenticate(signed({ now: now + 1000 }), given)).toMatchObject({ ok: true })
  for (const id of ['1', '2'])
    expect(authenticate(signed({ headers: { 'amz-sdk-invocation-id': id } }), given)).toMatchObject({
      ok: true,
    })
})

it('leaves reads, presigned URLs and bearer tokens alone: they are for many requests', () => {
  const replays = new Replays()
  const given = { ...options(), replays }
  const { token } = makeToken({ host: 'h', credentials, now })
  const url = presign({
    ...{ url: new URL('https://h/apis/x'), credentials, now, region: 'local', service: 'plasmavmc' },
    ...{ method: 'DELETE', expiresSeconds: 60 },
  })
  const target = { method: 'DELETE', rawUrl: url.pathname + url.search, bodySha256: sha256Hex('') }
  for (let i = 0; i < 3; i += 1) {
    for (const method of ['GET', 'HEAD'])
      expect(authenticate(signed({ method }), given)).toMatchObject({ ok: true })
    expect(authenticate({ ...target, headers: { host: 'h' } }, given)).toMatchObject({ ok: true })
    const headers = { authorization: `Bearer ${token}` }
    expect(authenticate({ ...signed(), headers }, given)).toMatchObject({ ok: true })
  }
  expect(replays.size).toBe(0)
})

it('remembers nothing of what it did not let in', () => {
  const replays = new Replays()
  const given = { ...options(), replays }
  for (let i = 0; i < 100; i += 1) authenticate(signed({ secretAccessKey: `wrong${i}` }), given)
  expect(replays.size).toBe(0)
})

it('tells apart a hundred thousand, and knows each again', () => {
  const replays = new Replays()
  const count = 100_000
  const seen = (n: number) => replays.see(one(n, now - (n % 5) * 60_000, `K${n % 3}`), now, windowMs)
  const sights = (from: number) => new Set(Array.from({ length: count }, (_, i) => seen(from + i)))
  expect(sights(0)).toEqual(new Set(['new']))
  expect(sights(0)).toEqual(new Set(['seen']))
  expect(replays.size).toBe(count)
})

it('forgets what is too old to be let in, and nothing before', () => {
  const replays = new Replays()
  for (let n = 0; n < 60; n += 1) {
    const at = now + n * 20_000
    expect(replays.see(one(n, at), at, windowMs)).toBe('new')
    for (let old = 0; old <= n; old += 1) {
      const signedAt = now + old * 20_000
      if (at - signedAt <= windowMs) expect(replays.see(one(old, signedAt), at, windowMs)).toBe('seen')
    }
    expect(replays.size).toBeLessThanOrEqual(windowMs / 20_000 + 5)
  }
})

it('does not let a replay in because the clock was set back', () => {
  const replays = new Replays()
  expect(replays.see(one(1), now, windowMs)).toBe('new')
  expect(replays.see(one(2, now + 3_600_000), now + 3_600_000, windowMs)).toBe('new')
  expect(replays.see(one(1), now, windowMs)).toBe('forgotten')
})

it('holds only so many, and one key can’t take the room of others', () => {
  const replays = new Replays({ inAll: 300, ofOne: 200 })
  const sights = (key: string) => {
    const all = Array.from({ length: 250 }, (_, i) =>
      replays.see(one(i, now - (i % 4) * 60_000, key), now, windowMs),
    )
    return all.filter((sight) => sight === 'new').length
  }
  expect([sights('A'), sights('B'), sights('C')]).toEqual([200, 100, 0])
  expect(replays.size).toBe(300)
  expect(replays.see(one(999, now + 700_000), now + 700_000, windowMs)).toBe('new')
  expect(replays.size).toBe(1)
})

it('asks to wait where it can’t remember more', () => {
  const given = { ...options(), replays: new Replays({ inAll: 1, ofOne: 1 }) }
  expect(authenticate(signed(), given)).toMatchObject({ ok: true })
  expect(authenticate(signed({ body: 'x' }), given)).toMatchObject({
    code: 'Throttling',
    retryAfterSeconds: 60,
  })
})
