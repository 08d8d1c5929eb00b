import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lease } from '../../src/resources/kinds.ts'
import { machines } from './fixture.ts'
import { codesOf, type Door, door } from './raw.ts'

const leases = '/apis/coordination.k8s.io/v1/namespaces/default/leases'
const json = { 'content-type': 'application/json' }

let at: Door
beforeAll(async () => {
  at = await door()
})
afterAll(() => at.close())

const names = async () => (await at.server.objects.list(Lease)).items.map(({ metadata }) => metadata.name)
const lease = (name: string) => JSON.stringify({ metadata: { name } })
const post = (name: string, headers = {}) =>
  at.signed({ method: 'POST', target: leases, body: lease(name), headers: { ...json, ...headers } })

/** The head of a signed POST of a body, without its length, to frame the body anew. */
function headOf(text: string): string {
  return text.slice(0, text.indexOf('\r\n\r\n')).replace(/\r\ncontent-length: \d+/, '')
}

const chunked = (body: string, ...cuts: number[]) => {
  const pieces = [0, ...cuts].map((from, i) => body.slice(from, [...cuts, body.length][i]))
  return `${pieces.map((piece) => `${piece.length.toString(16)}\r\n${piece}\r\n`).join('')}0\r\n\r\n`
}

describe('the frame of a body', () => {
  it('may be chunks: what is hashed is what they hold', async () => {
    const text = post('chunks')
    const framed = `${headOf(text)}\r\ntransfer-encoding: chunked\r\n\r\n`
    expect(codesOf(await at.send(framed + chunked(lease('chunks'), 3, 10)))).toEqual([201])
    expect(codesOf(await at.send(framed + chunked(lease('chunkz'), 3, 10)))).toEqual([401])
    expect(await names()).toContain('chunks')
  })

  it.each([
    ['both a length and chunks', 'content-length: 5\r\ntransfer-encoding: chunked'],
    ['chunks and then a length', 'transfer-encoding: chunked\r\ncontent-length: 5'],
    ['two lengths', 'content-length: 5\r\ncontent-length: 6'],
    ['a list of lengths', 'content-length: 5, 5'],
    ['a signed length', 'content-length: +5'],
    ['a negative length', 'content-length: -1'],
    ['a hexadecimal length', 'content-length: 0x5'],
    ['a length beyond all numbers', `content-length: ${'9'.repeat(30)}`],
    ['an unknown encoding', 'transfer-encoding: x'],
    ['chunked twice', 'transfer-encoding: chunked, chunked'],
    ['chunked and more', 'transfer-encoding: chunked, x'],
    ['chunked with a space', 'transfer-encoding : chunked'],
    ['chunked, folded', 'transfer-encoding:\r\n chunked'],
    ['chunked with a vertical tab', 'transfer-encoding: \x0bchunked'],
  ])('is refused with %s, and nothing after it is taken for a request', async (_, framing) => {
    const inner = post('smuggled')
    const before = await names()
    const text = post('framed')
    const answer = await at.send(`${headOf(text)}\r\n${framing}\r\n\r\n0\r\n\r\n${inner}`)
    expect(codesOf(answer).filter((code) => code < 400)).toEqual([])
    expect(codesOf(answer)).toHaveLength(1)
    expect(await names()).toEqual(before)
  })

  it.each([
    'x\r\nab\r\n0\r\n\r\n',
    '-1\r\n\r\n',
    '5;\r\nab',
    'ffffffffffffffffff\r\nab',
    '2\nab\n0\n\n',
    '2\r\nabc\r\n0\r\n\r\n',
  ])('is refused with the chunks %j', async (chunks) => {
    const text = post('badly')
    const codes = codesOf(await at.send(`${headOf(text)}\r\ntransfer-encoding: chunked\r\n\r\n${chunks}`))
    expect(codes.filter((code) => code < 400)).toEqual([])
    expect(await names()).not.toContain('badly')
  })

  it('separates requests on one connection: each is judged by itself', async () => {
    const keep = { connection: 'keep-alive' }
    const unsigned = `POST ${leases} HTTP/1.1\r\nhost: ${at.host}\r\ncontent-type: application/json\r\ncontent-length: ${lease('two').length}\r\n\r\n${lease('two')}`
    expect(codesOf(await at.send(post('one', keep) + unsigned + post('three'), { open: true }))).toEqual([
      201, 401, 201,
    ])
    expect(await names()).toEqual(expect.arrayContaining(['one', 'three']))
    expect(await names()).not.toContain('two')
  })

  it('hides no request in the body of one whose method has none', async () => {
    const inner = post('hidden')
    const text = at.signed({ headers: { connection: 'keep-alive' } })
    const framed = text.replace(/\r\n\r\n$/, `\r\ncontent-length: ${inner.length}\r\n\r\n${inner}`)
    const codes = codesOf(await at.send(framed))
    expect(codes).toHaveLength(1)
    expect(codes[0]).toBeGreaterThanOrEqual(400)
    expect(await names()).not.toContain('hidden')
  })

  it('must be there whole', async () => {
    const text = post('half')
    expect(codesOf(await at.send(text.slice(0, -5))).filter((code) => code < 400)).toEqual([])
    expect(await names()).not.toContain('half')
  })
})

describe('the form of a body', () => {
  it('is not decompressed: an encoding is refused', async () => {
    const body = gzipSync(lease('zipped')).toString('latin1')
    const bytes = Buffer.from(body, 'latin1')
    const { signRequest } = await import('../../src/auth/sign.ts')
    const { credentials } = await import('../auth/fixture.ts')
    const url = new URL(`http://${at.host}${leases}`)
    const headers = { ...json, 'content-encoding': 'gzip', connection: 'close' }
    const scope = { credentials, now: Date.now(), region: 'local', service: 'plasmavmc' }
    const all = signRequest({ method: 'POST', url, headers, body: bytes, ...scope })
    const lines = Object.entries({ ...all, 'content-length': String(bytes.length) }).map((pair) =>
      pair.join(': '),
    )
    const answer = await at.send(
      Buffer.concat([Buffer.from(`POST ${leases} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`), bytes]),
    )
    expect(codesOf(answer)).toEqual([415])
    expect(answer).toContain('gzip')
  })

  it.each(['HEAD', 'OPTIONS', 'TRACE', 'CONNECT', 'PROPFIND', 'PURGE', 'QUERY', 'LINK', 'get', 'FOO'])(
    'counts for nothing with the method %s, which is refused',
    async (method) => {
      const before = await names()
      const text = at.signed({ method, target: leases, body: lease('by-method'), headers: json })
      const codes = codesOf(await at.send(text))
      expect(codes.filter((code) => code < 400)).toEqual([])
      expect(await names()).toEqual(before)
    },
  )

  it('is not read before the request is known to be signed, where it says that it is large', async () => {
    const text = `POST ${machines} HTTP/1.1\r\nhost: ${at.host}\r\ncontent-type: application/json\r\ncontent-length: 10000000000\r\n\r\n`
    expect(codesOf(await at.send(text))).toEqual([413])
  })
})
