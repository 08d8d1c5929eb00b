import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { abortRequest, infoRequest, longestReply, NbdHandshake } from '../../src/host/nbd-codec.ts'
import { PlasmaError } from '../../src/lib/errors.ts'

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const u16 = (value: number) => hex(value.toString(16).padStart(4, '0'))
const u32 = (value: number) => hex(value.toString(16).padStart(8, '0'))

const greeting = (flags = 3) => Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(flags)])
const reply = (type: number, data: Buffer = Buffer.alloc(0), to = 6) =>
  Buffer.concat([hex('0003e889045565a9'), u32(to), u32(type), u32(data.length), data])
const exportReply = (size: bigint, flags: number) =>
  reply(3, Buffer.concat([u16(0), hex(size.toString(16).padStart(16, '0')), u16(flags)]))
const blockSizeReply = reply(3, Buffer.concat([u16(3), u32(1), u32(4096), u32(1 << 25)]))
const ack = reply(1)
const error = (number: number, text = '') => reply(0x8000_0000 + number, Buffer.from(text))

/** What comes of bytes that arrive in one piece. */
function outcome(...parts: readonly Buffer[]) {
  const handshake = new NbdHandshake('x')
  const sent = handshake.push(Buffer.concat(parts))
  return { sent, result: handshake.result }
}

/** The code of what is thrown. */
function codeOf(...parts: readonly Buffer[]): string | undefined {
  try {
    outcome(...parts)
  } catch (thrown) {
    return thrown instanceof PlasmaError ? thrown.code : `no PlasmaError: ${thrown}`
  }
  return undefined
}

describe('the handshake, byte by byte as the protocol document has it', () => {
  test('the request asks for one export and its block sizes', () => {
    expect(infoRequest('disk é')).toEqual(
      Buffer.concat([
        Buffer.from('IHAVEOPT'),
        hex('00000006 0000000f'),
        hex('00000007'),
        Buffer.from('disk é'),
        hex('0001 0003'),
      ]),
    )
    expect(abortRequest).toEqual(Buffer.concat([Buffer.from('IHAVEOPT'), hex('00000002 00000000')]))
  })

  test('the greeting is answered with the flags that both know', () => {
    expect(outcome(greeting(3)).sent).toEqual(Buffer.concat([hex('00000003'), infoRequest('x')]))
    expect(outcome(greeting(1)).sent).toEqual(Buffer.concat([hex('00000001'), infoRequest('x')]))
    expect(outcome(greeting(0xffff)).sent).toEqual(Buffer.concat([hex('00000003'), infoRequest('x')]))
  })

  test('an export with what it can, and goodbye', () => {
    const { sent, result } = outcome(greeting(), blockSizeReply, exportReply(1n << 40n, 0x50f), ack)
    expect(result).toEqual({ size: 1n << 40n, readOnly: true })
    expect(sent.subarray(-abortRequest.length)).toEqual(abortRequest)
    expect(outcome(greeting(), exportReply(512n, 0x50d), ack).result?.readOnly).toBe(false)
    // Without NBD_FLAG_HAS_FLAGS the others mean nothing.
    expect(outcome(greeting(), exportReply(512n, 2), ack).result?.readOnly).toBe(false)
  })

  test('without its end it is not known yet', () => {
    expect(outcome(greeting(), exportReply(512n, 1)).result).toBeUndefined()
  })

  test.each([
    ['a web server', [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')], 'NotNbd'],
    ['another magic', [Buffer.from('NBDMAGICIHAVENOT'), u16(1)], 'NotNbd'],
    ['the old style', [Buffer.from('NBDMAGIC'), hex('0000420281861253'), Buffer.alloc(136)], 'NbdTooOld'],
    ['newstyle that is not fixed', [greeting(2)], 'NbdTooOld'],
    ['no NBD_OPT_INFO', [greeting(), error(1)], 'NbdTooOld'],
    ['a policy', [greeting(), error(2, 'go away')], 'ExportRefused'],
    ['TLS', [greeting(), error(5)], 'TlsRequired'],
    ['no such export', [greeting(), error(6)], 'ExportUnknown'],
    ['shutting down', [greeting(), error(7)], 'NbdShutdown'],
    ['an error of the future', [greeting(), error(99)], 'ExportRefused'],
    ['an answer to something else', [greeting(), reply(1, Buffer.alloc(0), 7)], 'NotNbd'],
    ['an end without an export', [greeting(), blockSizeReply, ack], 'NotNbd'],
    ['an export that is cut off', [greeting(), reply(3, u16(0)), ack], 'NotNbd'],
    ['information without a kind', [greeting(), reply(3, hex('00')), ack], 'NotNbd'],
    [
      'an answer that is too long',
      [greeting(), reply(3, Buffer.alloc(longestReply + 1)).subarray(0, 20)],
      'NotNbd',
    ],
    ['answers without end', [greeting(), ...Array.from({ length: 40 }, () => blockSizeReply)], 'NotNbd'],
  ] as const)('%s', (_what, parts, code) => {
    expect(codeOf(...parts)).toBe(code)
  })

  test('what the server says is shown as one short line', () => {
    const text = `no\r\n\u001b[31m${'x'.repeat(1_000)}`
    const thrown = (() => {
      try {
        outcome(greeting(), error(2, text))
      } catch (caught) {
        return String((caught as Error).message)
      }
      return ''
    })()
    expect(thrown).toMatch(/^its policy forbids it \("no \[31mx+…"\)$/)
    expect(thrown.length).toBeLessThan(250)
  })
})

describe('whatever arrives', () => {
  /** What comes of chunks one after the other: what was sent, what was found, or the code of the refusal. */
  function played(chunks: readonly Buffer[]) {
    const handshake = new NbdHandshake('x')
    const sent: Buffer[] = []
    try {
      for (const chunk of chunks) {
        sent.push(handshake.push(chunk))
        expect(handshake.kept).toBeLessThanOrEqual(longestReply + 20)
      }
    } catch (thrown) {
      if (!(thrown instanceof PlasmaError)) throw thrown
      return { code: thrown.code, message: thrown.message }
    }
    return { sent: Buffer.concat(sent).toString('hex'), result: handshake.result }
  }

  const part = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(greeting(), blockSizeReply, exportReply(512n, 3), ack, error(6), error(2, 'é')),
    fc
      .tuple(fc.nat(5), fc.uint8Array({ maxLength: 300 }))
      .map(([type, data]) => reply(type, Buffer.from(data))),
  )
  const stream = fc
    .tuple(fc.boolean(), fc.array(part, { maxLength: 12 }))
    .map(([greets, parts]) => Buffer.concat(greets ? [greeting(), ...parts] : parts))

  function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
    const at = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
    return at.slice(1).map((end, i) => bytes.subarray(at[i], end))
  }

  test('ends in a result or a refusal of ours, and is the same however it is cut', () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 20 }), (bytes, places) => {
        expect(played(cut(bytes, places))).toEqual(played([bytes]))
      }),
      { numRuns: 500 },
    )
  })

  test('bytes one by one', () => {
    const bytes = Buffer.concat([greeting(), blockSizeReply, exportReply(4096n, 1), ack])
    const singles = [...bytes].map((byte) => Buffer.from([byte]))
    expect(played(singles)).toEqual(played([bytes]))
  })
})
