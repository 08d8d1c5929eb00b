import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto'
import { SignatureV4 } from '@smithy/signature-v4'
import aws4 from 'aws4'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { amzDate } from '../../src/auth/amz-date.ts'
import { queryPairs } from '../../src/auth/canonical-query.ts'
import { sha256Hex } from '../../src/auth/hash.ts'
import { signRequest } from '../../src/auth/sign.ts'
import { type SignedRequest, verifyRequest } from '../../src/auth/verify.ts'
import { credentials, identity, now, options } from './fixture.ts'
import { rawUrlOf, request } from './random-requests.ts'

const host = '127.0.0.1:7443'
const runs = { numRuns: 2000 }
const accepted = { ok: true, identity }

class Sha256 {
  private readonly hash: Hash | Hmac
  constructor(key?: string | Uint8Array) {
    this.hash = key === undefined ? createHash('sha256') : createHmac('sha256', key)
  }
  update(data: string | Uint8Array): void {
    this.hash.update(data)
  }
  async digest(): Promise<Uint8Array> {
    return this.hash.digest()
  }
  reset(): void {}
}

it('agrees with aws4, both ways', () => {
  fc.assert(
    fc.property(request, (sample) => {
      const rawUrl = rawUrlOf(sample)
      const base = { host, 'x-amz-date': amzDate(now), ...sample.headers }
      const theirs = aws4.sign(
        {
          method: sample.method,
          path: rawUrl,
          headers: { ...base },
          body: sample.body,
          service: 'plasmavmc',
          region: 'local',
        },
        credentials,
      )
      const bodySha256 = sha256Hex(sample.body)
      const received: SignedRequest = {
        method: sample.method,
        rawUrl,
        headers: Object.entries(theirs.headers ?? {}).map(([name, value]): [string, string] => [
          name,
          String(value),
        ]),
        bodySha256,
      }
      expect(verifyRequest(received, options())).toEqual(accepted)
    }),
    runs,
  )
})

it('agrees with @smithy/signature-v4 on headers', async () => {
  const signer = new SignatureV4({
    credentials,
    region: 'local',
    service: 'plasmavmc',
    sha256: Sha256 as never,
  })
  await fc.assert(
    fc.asyncProperty(request, async (sample) => {
      const theirs = await signer.sign(
        {
          method: sample.method,
          protocol: 'https:',
          hostname: '127.0.0.1',
          path: sample.path,
          query: Object.fromEntries(sample.query),
          headers: { host, ...sample.headers },
          body: sample.body,
        },
        { signingDate: new Date(now) },
      )
      const received = {
        method: sample.method,
        rawUrl: rawUrlOf(sample),
        headers: theirs.headers,
        bodySha256: sha256Hex(sample.body),
      }
      expect(verifyRequest(received, options())).toEqual(accepted)
    }),
    runs,
  )
})

it('agrees with @smithy/signature-v4 on presigned URLs', async () => {
  const signer = new SignatureV4({
    credentials,
    region: 'local',
    service: 'plasmavmc',
    sha256: Sha256 as never,
  })
  await fc.assert(
    fc.asyncProperty(request, async (sample) => {
      const theirs = await signer.presign(
        {
          method: 'GET',
          protocol: 'https:',
          hostname: '127.0.0.1',
          path: sample.path,
          query: Object.fromEntries(sample.query),
          headers: { host },
        },
        { signingDate: new Date(now), expiresIn: 60 },
      )
      const pairs = Object.entries(theirs.query ?? {}).map(([name, value]): [string, string[]] => [
        name,
        [value ?? ''].flat(),
      ])
      const rawUrl = rawUrlOf({ path: sample.path, query: pairs })
      const received = { method: 'GET', rawUrl, headers: { host }, bodySha256: sha256Hex('') }
      expect(verifyRequest(received, options())).toEqual(accepted)
    }),
    { numRuns: 1000 },
  )
})

it('verifies whatever we sign, in any order of the query', () => {
  fc.assert(
    fc.property(request, (sample) => {
      const url = new URL(`https://${host}${rawUrlOf(sample)}`)
      const signed = signRequest({
        method: sample.method,
        url,
        headers: sample.headers,
        body: sample.body,
        credentials,
        now,
        region: 'local',
        service: 'plasmavmc',
      })
      const backwards = queryPairs(url.search.slice(1)).reverse()
      const rawUrl = `${url.pathname}?${backwards.map((pair) => pair.join('=')).join('&')}`
      const received = { method: sample.method, rawUrl, headers: signed, bodySha256: sha256Hex(sample.body) }
      expect(verifyRequest(received, options())).toEqual(accepted)
    }),
    runs,
  )
})

it('agrees with aws4 and @smithy/signature-v4 on paths that are encoded once, as for S3', async () => {
  const scope = { region: 'local', service: 's3' }
  const signer = new SignatureV4({ credentials, ...scope, uriEscapePath: false, sha256: Sha256 as never })
  const once = { ...options(), service: 's3', pathEncoding: 'once' as const }
  await fc.assert(
    fc.asyncProperty(request, async (sample) => {
      // A path that is encoded as RFC 3986 has it: smithy signs what it is given.
      const path = sample.path.replace(/[:!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
      const rawUrl = rawUrlOf({ ...sample, path })
      const { method, body, query } = sample
      const base = { host, 'x-amz-date': amzDate(now), 'x-amz-content-sha256': sha256Hex(body) }
      const smithy = await signer.sign(
        {
          ...{ method, protocol: 'https:', hostname: '127.0.0.1', path, query: Object.fromEntries(query) },
          ...{ headers: { ...base, ...sample.headers }, body },
        },
        { signingDate: new Date(now) },
      )
      const received = { method, rawUrl, bodySha256: sha256Hex(body) }
      expect(verifyRequest({ ...received, headers: smithy.headers }, once)).toEqual(accepted)
      // aws4 resolves nothing for S3, but takes %2F for a slash.
      if (/%2f|\/\/|\/\.{1,2}(\/|$)/i.test(path) || sample.query.length > 0) return
      const theirs = aws4.sign({ ...{ method, path, body, headers: { ...base } }, ...scope }, credentials)
      const sent = Object.entries(theirs.headers ?? {}).map(([k, v]): [string, string] => [k, String(v)])
      expect(verifyRequest({ ...received, headers: sent }, once)).toEqual(accepted)
    }),
    runs,
  )
})
