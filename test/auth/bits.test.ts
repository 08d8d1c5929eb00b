import { posix } from 'node:path'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { sha256Hex } from '../../src/auth/hash.ts'
import { signRequest } from '../../src/auth/sign.ts'
import { type SignedRequest, verifyRequest } from '../../src/auth/verify.ts'
import { credentials, identity, now, options } from './fixture.ts'
import { rawUrlOf, request, type Sample } from './random-requests.ts'

const host = '127.0.0.1:7443'
const given = options()
const scope = { region: 'local', service: 'plasmavmc' }

interface Sent extends SignedRequest {
  readonly headers: Readonly<Record<string, string>>
}

function signedOf({ method, headers, body, ...place }: Sample): Sent {
  // As the URL class writes it, which is what goes over the wire.
  const url = new URL(`https://${host}${rawUrlOf(place)}`)
  const all = signRequest({ method, url, headers, body, credentials, now, ...scope })
  return { method, rawUrl: url.pathname + url.search, headers: all, bodySha256: sha256Hex(body) }
}

/** The text with one bit of one byte changed. */
function flipped(text: string, bit: number): string {
  const bytes = Buffer.from(text, 'latin1')
  const at = bit % (bytes.length * 8)
  bytes[at >> 3]! ^= 1 << (at & 7)
  return bytes.toString('latin1')
}

/** What a URL means, worked out without our code: its path resolved, its parameters in any order. */
function meaning(rawUrl: string): string {
  const at = rawUrl.indexOf('?')
  const path = at < 0 ? rawUrl : rawUrl.slice(0, at)
  const pairs = (at < 0 ? '' : rawUrl.slice(at + 1)).split('&').filter((piece) => piece !== '')
  const bytes = (text: string) =>
    Buffer.from(
      text
        .replaceAll('+', ' ')
        .replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
      'latin1',
    ).toString('hex')
  const parts = pairs.map((piece) => {
    const [name = '', ...rest] = piece.split('=')
    return `${bytes(name)}=${bytes(rest.join('='))}`
  })
  return `${posix.normalize(path)}?${parts.sort().join('&')}`
}

/** What a header's value means: spaces in a row are one. */
const trimmed = (value: string) => value.trim().replace(/[ \t]+/g, ' ')

const whole = { min: 0, max: 2 ** 31 - 1 }

it('refuses every request of which one bit changed, of whatever kind it is', { timeout: 120_000 }, () => {
  let tried = 0
  fc.assert(
    fc.property(request, fc.array(fc.integer(whole), { minLength: 12, maxLength: 12 }), (sample, bits) => {
      const sent = signedOf(sample)
      expect(verifyRequest(sent, options())).toEqual({ ok: true, identity })
      const next = () => bits.pop() ?? 0
      const names = Object.keys(sent.headers)
      const other = names[next() % names.length]!
      // Twice the URL: it is where most may go wrong.
      const changed: Sent[] = [
        { ...sent, method: flipped(sent.method, next()) },
        { ...sent, rawUrl: flipped(sent.rawUrl, next()) },
        { ...sent, rawUrl: flipped(sent.rawUrl, next()) },
        { ...sent, bodySha256: sha256Hex(flipped(sample.body === '' ? 'x' : sample.body, next())) },
        ...[other, 'x-amz-date', 'host', 'authorization', 'authorization', 'authorization'].map((name) => ({
          ...sent,
          headers: { ...sent.headers, [name]: flipped(sent.headers[name]!, next()) },
        })),
      ]
      for (const one of changed) {
        const same =
          one.method === sent.method &&
          one.bodySha256 === sent.bodySha256 &&
          meaning(one.rawUrl) === meaning(sent.rawUrl) &&
          names.every((name) => trimmed(one.headers[name]!) === trimmed(sent.headers[name]!))
        tried += 1
        if (!same && verifyRequest(one, given).ok) throw new Error(`let in: ${JSON.stringify(one)}`)
      }
    }),
    { numRuns: 3_000 },
  )
  expect(tried).toBe(30_000)
})

it('refuses a request of which a signed header is gone, doubled or renamed', () => {
  fc.assert(
    fc.property(request, fc.integer(whole), (sample, seed) => {
      const sent = signedOf(sample)
      const names = Object.keys(sent.headers)
      const name = names[seed % names.length]!
      const { [name]: value = '', ...rest } = sent.headers
      const changed = [rest, { ...rest, [name]: [value, value] }, { ...rest, [`${name}x`]: value }]
      for (const headers of changed)
        if (verifyRequest({ ...sent, headers }, given).ok)
          throw new Error(`let in: ${JSON.stringify(headers)}`)
    }),
    { numRuns: 1_000 },
  )
})
