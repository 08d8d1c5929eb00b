import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type SealingKey, seal, unseal } from '../../src/auth/seal.ts'
import {
  makeSecretsFile,
  newKeyLine,
  parseSecretsFile,
  readSecretsFile,
} from '../../src/auth/secrets-file.ts'
import { bitFlips } from './fixture.ts'

const keyOf = (id: string, fill: number): SealingKey => ({ id, bytes: Buffer.alloc(32, fill) })
const [one, two] = [keyOf('one', 1), keyOf('two', 2)]

describe('a sealed secret', () => {
  it('opens with its key among others, and is never the same twice', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (secret, about) => {
        const sealed = seal(one, secret, about)
        expect(unseal([two, one], sealed, about)).toBe(secret.toWellFormed())
        expect(seal(one, secret, about).data).not.toBe(sealed.data)
      }),
      { numRuns: 50 },
    )
  })

  it('does not open for another key, under another id, or for something else', () => {
    const sealed = seal(one, 'secret', 'a')
    expect(unseal([two], sealed, 'a')).toBeUndefined()
    expect(unseal([keyOf('one', 2)], sealed, 'a')).toBeUndefined()
    expect(unseal([keyOf('two', 1)], { ...sealed, keyId: 'two' }, 'a')).toBeUndefined()
    expect(unseal([one], sealed, 'b')).toBeUndefined()
  })

  it('does not open with any bit changed, or cut short', () => {
    const sealed = seal(one, 'secret', 'a')
    for (const member of ['data', 'nonce'] as const) {
      const bytes = Buffer.from(sealed[member], 'base64').toString('latin1')
      for (const changed of bitFlips(bytes)) {
        const text = Buffer.from(changed, 'latin1').toString('base64')
        expect(unseal([one], { ...sealed, [member]: text }, 'a')).toBeUndefined()
      }
    }
    expect(unseal([one], { ...sealed, data: 'AAAA' }, 'a')).toBeUndefined()
    expect(unseal([one], { ...sealed, data: '' }, 'a')).toBeUndefined()
    expect(JSON.stringify(sealed)).not.toContain('secret')
  })
})

describe('the file of keys', () => {
  let dir: string
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'pvk-'))
  })
  afterAll(() => rmSync(dir, { recursive: true }))

  it('is made once, for its owner alone', () => {
    const file = join(dir, 'secrets.key')
    expect(readSecretsFile(file)).toBeUndefined()
    expect(makeSecretsFile(file)).toBe(true)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const made = readSecretsFile(file)
    expect(made?.map(({ bytes }) => bytes.length)).toEqual([32])
    expect(makeSecretsFile(file)).toBe(false)
    expect(readSecretsFile(file)).toEqual(made)
    chmodSync(file, 0o640)
    expect(() => readSecretsFile(file)).toThrow(/may be read by others/)
  })

  it('may hold several keys, in order, with notes', () => {
    const [a, b] = [newKeyLine(), newKeyLine()]
    const keys = parseSecretsFile(`# note\n\n${a}${b}`, 'f')
    expect(keys.map(({ id }) => id)).toEqual([a.split(' ')[0], b.split(' ')[0]])
  })

  it.each([
    ['nothing', '# only a note\n', /f: has no key/],
    ['a short key', 'a AAAA\n', /f: line 1 is no ID with 32 bytes/],
    ['a key without an id', `${'A'.repeat(43)}=\n`, /line 1/],
    [
      'an id twice',
      `${newKeyLine((size) => Buffer.alloc(size))}${newKeyLine((size) => Buffer.alloc(size))}`,
      /line 2: the id k0+ stands twice/,
    ],
  ])('refuses %s and tells no key', (_, text, message) => {
    expect(() => parseSecretsFile(text, 'f')).toThrow(message)
    expect(() => parseSecretsFile(text, 'f')).not.toThrow(/AAAAAAAA/)
    writeFileSync(join(dir, 'bad.key'), text, { mode: 0o600 })
    expect(() => readSecretsFile(join(dir, 'bad.key'))).toThrow()
  })
})
