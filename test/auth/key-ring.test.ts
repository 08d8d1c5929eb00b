import { describe, expect, it } from 'vitest'
import { KeyRing, lastUsedEveryMs } from '../../src/auth/key-ring.ts'
import { verifyRequest } from '../../src/auth/verify.ts'
import { AccessKey } from '../../src/resources/access-key.ts'
import { withDefaults } from '../../src/resources/parse.ts'
import { credentials, now, options, signed } from './fixture.ts'

const id = credentials.accessKeyId
const name = id.toLowerCase()

function key(spec: object = {}, more: object = {}): AccessKey {
  return withDefaults(AccessKey, {
    ...{ apiVersion: 'plasmavmc.io/v1alpha1', kind: 'AccessKey' },
    metadata: { name, uid: 'u', ...more },
    spec: { user: 'alice', groups: ['ops'], ...spec },
  } as AccessKey)
}

function ring(notes: number[] = [], fails = false) {
  return new KeyRing({
    secretOf: (uid) => (uid === 'u' ? credentials.secretAccessKey : undefined),
    note: async (_, at) => {
      notes.push(at)
      if (fails) throw new Error('no')
    },
  })
}

/** What a signer with the key hears of a ring that has it. */
function verdict(object: AccessKey | undefined, at = now) {
  const keys = ring()
  keys.set(name, object)
  return verifyRequest(signed({ now: at, headers: { 'content-type': 'a/b' } }), {
    ...options(),
    now: at,
    secretOf: keys.secretOf,
  })
}

describe('keys of the store', () => {
  it('stand for their user, with the id that signed', () => {
    const groups = ['ops', 'system:authenticated']
    expect(verdict(key())).toEqual({ ok: true, identity: { name: 'alice', groups, accessKeyId: id } })
  })

  it('are refused when they are disabled, expired, going, not understood, or gone', () => {
    expect(verdict(key({ disabled: true }))).toMatchObject({ code: 'InvalidClientTokenId' })
    expect(verdict(key({}, { deletionTimestamp: 'x' }))).toMatchObject({ code: 'InvalidClientTokenId' })
    expect(verdict(key({ expiresAt: 'some day' }))).toMatchObject({ code: 'InvalidClientTokenId' })
    expect(verdict(key({}, { uid: 'other' }))).toMatchObject({ code: 'SignatureDoesNotMatch' })
    expect(verdict(undefined)).toMatchObject({ code: 'SignatureDoesNotMatch' })
    const expiresAt = new Date(now).toISOString()
    expect(verdict(key({ expiresAt }), now - 1)).toMatchObject({ ok: true })
    expect(verdict(key({ expiresAt }), now)).toMatchObject({ code: 'ExpiredToken' })
  })

  it('tell who does not know the secret nothing of that', () => {
    const texts = [undefined, key(), key({ disabled: true }), key({ expiresAt: '2020-01-01T00:00:00Z' })].map(
      (one) => {
        const keys = ring()
        keys.set(name, one)
        const request = signed({ secretAccessKey: 'wrong', headers: { 'content-type': 'a/b' } })
        return JSON.stringify(verifyRequest(request, { ...options(), secretOf: keys.secretOf }))
      },
    )
    expect(new Set(texts).size).toBe(1)
  })

  it('are told apart by case', () => {
    const keys = ring()
    keys.set(name, key())
    expect(keys.secretOf(name)).toBeUndefined()
    expect(keys.secretOf(id)).toBeDefined()
  })
})

describe('the last use of a key', () => {
  it('is written once an hour, whatever is signed, across changes of the key', () => {
    const notes: number[] = []
    const keys = ring(notes)
    keys.set(name, key())
    for (const at of [0, 1, lastUsedEveryMs - 1]) keys.used(id, now + at)
    keys.set(name, key({ groups: [] }))
    keys.used(id, now + lastUsedEveryMs - 1)
    expect(notes).toEqual([now])
    keys.used(id, now + lastUsedEveryMs)
    expect(notes).toHaveLength(2)
    keys.used('PVMCUNKNOWN', now)
    expect(notes).toHaveLength(2)
  })

  it('is not written by a server after another wrote it', () => {
    const notes: number[] = []
    const keys = ring(notes)
    keys.set(name, { ...key(), status: { lastUsed: new Date(now).toISOString() } })
    keys.used(id, now + lastUsedEveryMs - 1)
    expect(notes).toEqual([])
    keys.used(id, now + lastUsedEveryMs)
    expect(notes).toHaveLength(1)
  })

  it('is tried again after a minute where it could not be written', async () => {
    const notes: number[] = []
    const keys = ring(notes, true)
    keys.set(name, key())
    keys.used(id, now)
    await Promise.resolve()
    await Promise.resolve()
    keys.used(id, now + 59_999)
    expect(notes).toHaveLength(1)
    keys.used(id, now + 60_000)
    expect(notes).toHaveLength(2)
  })
})
