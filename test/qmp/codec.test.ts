import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Decoder, encode, excerpt, type Message } from '../../src/qmp/codec.ts'
import { ProtocolError } from '../../src/qmp/errors.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

/** All messages of `chunks`, and the error that ended the decoding, if any. */
function decodeAll(
  decoder: Decoder,
  chunks: readonly Uint8Array[],
): { messages: Message[]; error?: unknown } {
  const messages: Message[] = []
  try {
    for (const chunk of chunks) for (const message of decoder.decode(chunk)) messages.push(message)
  } catch (error) {
    return { messages, error }
  }
  return { messages }
}

/** `whole` cut at the given places, in any order, doubles and ends included: pieces may be empty. */
function cut(whole: Uint8Array, places: readonly number[]): Uint8Array[] {
  const ends = [...places.map((place) => place % (whole.length + 1)), whole.length].sort((a, b) => a - b)
  return ends.map((end, i) => whole.subarray(ends[i - 1] ?? 0, end))
}

const codeOf = (error: unknown) => (error instanceof ProtocolError ? error.code : error)
const json = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ stringUnit: 'binary', maxDepth: 4 }))
const places = fc.array(fc.nat(100_000), { maxLength: 40 })

describe('Decoder', () => {
  it('gives the same messages however the bytes are split and merged', () => {
    const ends = fc.constantFrom('\n', '\r\n', '\n\n', ' \r\n\t\n')
    fc.assert(
      fc.property(fc.array(fc.tuple(json, ends), { maxLength: 12 }), places, (sent, at) => {
        const whole = bytes(sent.map(([message, end]) => JSON.stringify(message) + end).join(''))
        const { messages, error } = decodeAll(new Decoder(), cut(whole, at))
        expect(error).toBeUndefined()
        expect(messages).toEqual(sent.map(([message]) => JSON.parse(JSON.stringify(message))))
      }),
      { numRuns: 500 },
    )
  })

  it('gives the same messages and the same error for garbage, however it is split', () => {
    const line = fc.oneof(
      json.map((message) => bytes(JSON.stringify(message))),
      fc.uint8Array({ maxLength: 40 }),
      fc.string({ maxLength: 20 }).map(bytes),
      fc.jsonValue({ maxDepth: 1 }).map((value) => bytes(JSON.stringify(value))),
    )
    fc.assert(
      fc.property(
        fc.array(line, { maxLength: 12 }),
        places,
        fc.integer({ min: 1, max: 60 }),
        (lines, at, limit) => {
          const whole = new Uint8Array(Buffer.concat(lines.flatMap((one) => [one, bytes('\n')])))
          const decoder = new Decoder(limit)
          const split = decodeAll(decoder, cut(whole, at))
          const merged = decodeAll(new Decoder(limit), [whole])
          expect(split.messages).toEqual(merged.messages)
          expect(codeOf(split.error)).toEqual(codeOf(merged.error))
          if (split.error !== undefined) expect(split.error).toBeInstanceOf(ProtocolError)
          for (const message of split.messages)
            expect(Object.prototype.toString.call(message)).toBe('[object Object]')
          expect(decoder.held).toBeLessThanOrEqual(limit)
        },
      ),
      { numRuns: 1_000 },
    )
  })

  it('takes a character that is cut in its middle', () => {
    const whole = bytes('{"a":"ä€😀"}\n')
    for (let place = 0; place <= whole.length; place += 1)
      expect(decodeAll(new Decoder(), cut(whole, [place])).messages).toEqual([{ a: 'ä€😀' }])
    const single = decodeAll(
      new Decoder(),
      [...whole].map((byte) => new Uint8Array([byte])),
    )
    expect(single.messages).toEqual([{ a: 'ä€😀' }])
  })

  it.each([
    ['one chunk', (text: string) => [bytes(text)]],
    ['single bytes', (text: string) => [...bytes(text)].map((byte) => new Uint8Array([byte]))],
  ])('takes a message as long as the limit and none longer, in %s', (_, chunked) => {
    const limit = 10
    expect(decodeAll(new Decoder(limit), chunked('{"a":1234}\n')).messages).toEqual([{ a: 1234 }])
    expect(codeOf(decodeAll(new Decoder(limit), chunked('{"a":12345}\n')).error)).toBe('MessageTooLong')
    // It must not wait for a line end that may never come.
    expect(codeOf(decodeAll(new Decoder(limit), chunked('{"a":123456')).error)).toBe('MessageTooLong')
    const many = decodeAll(new Decoder(limit), chunked('{"a":1234}\n'.repeat(100)))
    expect(many.messages).toHaveLength(100)
  })

  it('holds no more than the limit of an endless message, in whatever pieces', () => {
    setFlagsFromString('--expose-gc')
    const gc: () => void = runInNewContext('gc')
    const memory = () => {
      gc()
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const limit = 256 * 1024
    const decoder = new Decoder(limit)
    const chunk = bytes('x')
    const before = memory()
    for (let sent = 0; sent < limit; sent += 1) for (const message of decoder.decode(chunk)) throw message
    // A buffer for every byte would be some hundred times this.
    expect(memory() - before).toBeLessThan(16 * limit)
    expect(codeOf(decodeAll(decoder, [chunk]).error)).toBe('MessageTooLong')
    expect(decoder.held).toBe(limit)
  })

  it('takes a huge message in small pieces, and the next one', () => {
    const text = 'y'.repeat(8 * 1024 * 1024)
    const whole = bytes(`${JSON.stringify({ text })}\n{"b":1}\n`)
    const chunks = Array.from({ length: Math.ceil(whole.length / 1000) }, (_, i) =>
      whole.subarray(i * 1000, (i + 1) * 1000),
    )
    const { messages, error } = decodeAll(new Decoder(), chunks)
    expect(error).toBeUndefined()
    expect(messages.map((message) => Object.keys(message))).toEqual([['text'], ['b']])
    expect(messages[0]?.['text'] === text).toBe(true)
  })

  it('does not keep what it was given: a reader may use its buffer again', () => {
    const decoder = new Decoder()
    const chunk = bytes('{"a":')
    expect(decodeAll(decoder, [chunk]).messages).toEqual([])
    chunk.fill(0)
    expect(decodeAll(decoder, [bytes('1}\n')]).messages).toEqual([{ a: 1 }])
  })

  it('survives nesting deeper than any stack', () => {
    const deep = `{"a":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}\n`
    const { messages, error } = decodeAll(new Decoder(), [bytes(deep)])
    expect(messages.length === 1 || error instanceof ProtocolError).toBe(true)
    if (messages[0]) expect(excerpt(messages[0])).toBe('something of type object')
  })

  it.each([
    ['[1]', 'BadMessage'],
    ['null', 'BadMessage'],
    ['"text"', 'BadMessage'],
    ['{"a":1', 'BadJson'],
    ['{} {}', 'BadJson'],
    ['HTTP/1.1 400 Bad Request', 'BadJson'],
  ])('refuses %s', (text, code) => {
    const { messages, error } = decodeAll(new Decoder(), [bytes(`{"first":1}\n${text}\n`)])
    expect(messages).toEqual([{ first: 1 }])
    expect(codeOf(error)).toBe(code)
  })

  it('refuses what is not UTF-8', () => {
    const latin1 = new Uint8Array([...bytes('{"a":"'), 0xe4, ...bytes('"}\n')])
    expect(codeOf(decodeAll(new Decoder(), [latin1]).error)).toBe('BadEncoding')
  })
})

describe('encode', () => {
  it('writes one line of ASCII that reads back as it was', () => {
    fc.assert(
      fc.property(json, (message) => {
        const line = encode(message)
        expect(line).toMatch(/^[\x20-\x7e]*\n$/)
        expect(decodeAll(new Decoder(), [bytes(line)]).messages).toEqual([
          JSON.parse(JSON.stringify(message)),
        ])
      }),
      { numRuns: 500 },
    )
  })

  it.each([[{ arguments: { path: 'a\ud800b' } }], [{ arguments: { 'a\udc00': 1 } }]])(
    'refuses half a surrogate pair',
    (message) => {
      expect(() => encode(message)).toThrow(expect.objectContaining({ code: 'BadText' }))
    },
  )
})
