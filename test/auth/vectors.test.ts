import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canonicalPath, canonicalPathOnce } from '../../src/auth/canonical-path.ts'
import { canonicalQuery, queryPairs } from '../../src/auth/canonical-query.ts'
import { canonicalRequest } from '../../src/auth/canonical-request.ts'
import { emptySha256, hmacKey, hmacSha256, sha256Hex } from '../../src/auth/hash.ts'
import { signature } from '../../src/auth/signature.ts'
import { signingKey, signingKeyBytes } from '../../src/auth/signing-key.ts'
import { awsUriEncode } from '../../src/auth/uri-encode.ts'

// The worked example of AWS's documentation ("Signature Version 4 signing process", IAM ListUsers, 30 August 2015).
const secret = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
const scope = { date: '20150830', region: 'us-east-1', service: 'iam' }

describe('the worked example of the specification', () => {
  const canonical = canonicalRequest({
    method: 'GET',
    rawUrl: '/?Action=ListUsers&Version=2010-05-08',
    headers: [
      ['content-type', 'application/x-www-form-urlencoded; charset=utf-8'],
      ['host', 'iam.amazonaws.com'],
      ['x-amz-date', '20150830T123600Z'],
    ],
    signedHeaders: ['content-type', 'host', 'x-amz-date'],
    bodySha256: emptySha256,
  })

  it('has the documented hash of the canonical request', () => {
    expect(sha256Hex(canonical)).toBe('f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59')
  })

  it('has the documented signing key', () => {
    const key = 'c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9'
    expect(signingKeyBytes(secret, scope).toString('hex')).toBe(key)
    const hmac = hmacSha256(signingKey(secret, scope), 'text').toString('hex')
    expect(hmac).toBe(createHmac('sha256', Buffer.from(key, 'hex')).update('text').digest('hex'))
    expect(signingKey(secret, scope)).toBe(signingKey(secret, { ...scope }))
  })

  it('has the documented signature', () => {
    expect(signature(secret, scope, '20150830T123600Z', canonical)).toBe(
      '5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7',
    )
  })

  it('has the signature of get-vanilla of the test suite', () => {
    const vanilla = canonicalRequest({
      method: 'GET',
      rawUrl: '/',
      headers: [
        ['host', 'example.amazonaws.com'],
        ['x-amz-date', '20150830T123600Z'],
      ],
      signedHeaders: ['host', 'x-amz-date'],
      bodySha256: emptySha256,
    })
    expect(
      signature(
        'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
        { ...scope, service: 'service' },
        '20150830T123600Z',
        vanilla,
      ),
    ).toBe('5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31')
  })
})

describe('canonical form', () => {
  it.each([
    ['', '/'],
    ['/', '/'],
    ['//', '/'],
    ['/./', '/'],
    ['/example/..', '/'],
    ['/example1/example2/../..', '/'],
    ['/./example', '/example'],
    ['//example//', '/example/'],
    ['/../a', '/a'],
    ['/example%20space/', '/example%2520space/'],
    ['/a:b', '/a%3Ab'],
  ])('of the path %s is %s', (raw, canonical) => {
    expect(canonicalPath(raw)).toBe(canonical)
  })

  it.each([
    ['', '/'],
    ['//', '//'],
    ['/a/../b/./', '/a/../b/./'],
    ['/a%20b', '/a%20b'],
    ['/a%c3%a9:', '/a%C3%A9%3A'],
    ['/a%2Fb/c', '/a%2Fb/c'],
    ['/%61', '/a'],
    ['/%zz', '/%25zz'],
  ])('of the path %s is %s where it is encoded once', (raw, canonical) => {
    expect(canonicalPathOnce(raw)).toBe(canonical)
  })

  it.each([
    ['', ''],
    ['&&', ''],
    ['watch', 'watch='],
    ['__proto__=1', '__proto__=1'],
    ['b=2&a=1', 'a=1&b=2'],
    ['a=2&a=1&a', 'a=&a=1&a=2'],
    ['a-=1&a=2', 'a=2&a-=1'],
    ['a=b+c', 'a=b%20c'],
    ['a=x=y', 'a=x%3Dy'],
    ['%41=%c3%a9', 'A=%C3%A9'],
    ['a=%zz%', 'a=%25zz%25'],
  ])('of the query %s is %s', (raw, canonical) => {
    expect(canonicalQuery(queryPairs(raw))).toBe(canonical)
  })

  it('joins repeated headers and collapses spaces', () => {
    const text = canonicalRequest({
      method: 'GET',
      rawUrl: '/',
      headers: [
        ['my-header', '  a   b  '],
        ['my-header', 'c'],
      ],
      signedHeaders: ['my-header'],
      bodySha256: emptySha256,
    })
    expect(text).toContain('\nmy-header:a b,c\n\nmy-header\n')
  })

  it('takes a folded header for one line, as RFC 9112 does', () => {
    const [folded, plain] = ['value1\n  value2 \r\n\tvalue3', 'value1 value2 value3'].map((value) =>
      canonicalRequest({
        ...{ method: 'GET', rawUrl: '/', headers: [['my-header', value]], signedHeaders: ['my-header'] },
        bodySha256: emptySha256,
      }),
    )
    expect(folded).toBe(plain)
  })

  it('encodes everything but the unreserved characters, in UTF-8', () => {
    expect(awsUriEncode('aZ09-._~ /+*é')).toBe('aZ09-._~%20%2F%2B%2A%C3%A9')
    expect(awsUriEncode('a/b', false)).toBe('a/b')
  })
})

it('makes the HMACs that node makes, of keys and texts of any length', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 140 }),
      fc.string({ unit: 'grapheme', maxLength: 200 }),
      (key, text) => {
        const ours = hmacSha256(hmacKey(key), text).toString('hex')
        expect(ours).toBe(createHmac('sha256', key).update(text, 'utf8').digest('hex'))
      },
    ),
  )
})

it('keeps signing keys of several days apart, and makes forgotten ones again', () => {
  const keys = Array.from({ length: 40 }, (_, i) => ({
    ...scope,
    date: `201508${String(i + 10).padStart(2, '0')}`,
  }))
  for (const one of [...keys, ...keys]) {
    const wanted = createHmac('sha256', signingKeyBytes('s', one)).update('x').digest('hex')
    expect(hmacSha256(signingKey('s', one), 'x').toString('hex')).toBe(wanted)
  }
})
