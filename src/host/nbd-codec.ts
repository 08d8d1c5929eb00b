import { PlasmaError } from '../lib/errors.ts'

/**
 * The client's half of NBD's fixed newstyle handshake, as far as asking for one export goes (the NBD protocol document,
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Pure: bytes in, bytes out.
 */

/** What a server says of an export. */
export interface ExportInfo {
  /** Bytes. */
  readonly size: bigint
  readonly readOnly: boolean
}

export type NbdErrorCode =
  | 'NotNbd'
  | 'NbdTooOld'
  | 'ExportUnknown'
  | 'ExportRefused'
  | 'TlsRequired'
  | 'NbdShutdown'

const serverMagic = 0x4e42444d41474943n
const optionMagic = 0x49484156454f5054n
const oldMagic = 0x00420281861253n
const replyMagic = 0x0003e889045565a9n

const fixedNewstyle = 1
const noZeroes = 2

const options = { abort: 2, info: 6 } as const
const infos = { export: 0, blockSize: 3 } as const
const replies = { ack: 1, info: 3 } as const
const flags = { hasFlags: 1, readOnly: 2 } as const
/** Replies that are errors have the highest bit set. */
const errorBit = 0x8000_0000
const refusals: Readonly<Record<number, readonly [NbdErrorCode, string]>> = {
  1: ['NbdTooOld', 'it does not know NBD_OPT_INFO'],
  2: ['ExportRefused', 'its policy forbids it'],
  3: ['ExportRefused', 'it takes the request for invalid'],
  4: ['ExportRefused', 'its platform does not have it'],
  5: ['TlsRequired', 'it wants TLS'],
  6: ['ExportUnknown', 'it has no such export'],
  7: ['NbdShutdown', 'it is shutting down'],
  8: ['ExportRefused', 'it wants block sizes that were not agreed on'],
  9: ['ExportRefused', 'the request is too long for it'],
}

const greetingBytes = 18
const headerBytes = 20
/** The document lets texts have 4096 bytes; nothing that answers one request is longer than that. */
export const longestReply = 8_192
/** An export is described by a few of them; a server that goes on for ever is none. */
const mostReplies = 32
const longestText = 200

function option(code: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16)
  head.writeBigUInt64BE(optionMagic, 0)
  head.writeUInt32BE(code, 8)
  head.writeUInt32BE(data.length, 12)
  return Buffer.concat([head, data])
}

/** NBD_OPT_INFO for one export: what it is, without opening it. */
export function infoRequest(exportName: string): Buffer {
  const name = Buffer.from(exportName, 'utf8')
  const [length, wanted] = [Buffer.alloc(4), Buffer.alloc(4)]
  length.writeUInt32BE(name.length)
  wanted.writeUInt16BE(1, 0)
  wanted.writeUInt16BE(infos.blockSize, 2)
  return option(options.info, Buffer.concat([length, name, wanted]))
}

/** NBD_OPT_ABORT: says goodbye while still haggling, so that a server does not take it for the end of a client's work. */
export const abortRequest = option(options.abort, Buffer.alloc(0))

function clientFlags(server: number): Buffer {
  const own = Buffer.alloc(4)
  own.writeUInt32BE(fixedNewstyle | (server & noZeroes))
  return own
}

const fail = (code: NbdErrorCode, message: string) => new PlasmaError(code, message)

/** A text of the server's, fit to be shown: one line, no control characters, not long. */
function told(data: Buffer): string {
  const text = data
    .toString('utf8')
    .replaceAll(/\p{C}+/gu, ' ')
    .trim()
  return text.length > longestText ? `${text.slice(0, longestText)}…` : text
}

type Stage = 'greeting' | 'replies' | 'done'

/**
 * A handshake under way. Give it what arrives, send what it returns. It keeps at most `longestReply` and a header of
 * what it can't judge yet.
 */
export class NbdHandshake {
  readonly #exportName: string
  #stage: Stage = 'greeting'
  #kept: Buffer = Buffer.alloc(0)
  #replies = 0
  #found: ExportInfo | undefined
  #result: ExportInfo | undefined

  constructor(exportName: string) {
    this.#exportName = exportName
  }

  /** What the server said of the export, once it has said all. */
  get result(): ExportInfo | undefined {
    return this.#result
  }

  /** Bytes that wait for more. */
  get kept(): number {
    return this.#kept.length
  }

  /**
   * @returns what to send
   * @throws PlasmaError with an `NbdErrorCode`: what answers is no such server, or it refuses
   */
  push(chunk: Buffer): Buffer {
    this.#kept = Buffer.concat([this.#kept, chunk])
    const out: Buffer[] = []
    for (let more = this.#step(); more; more = this.#step()) out.push(more)
    return Buffer.concat(out)
  }

  /** Judges the next part of what is kept. @returns what to send, or undefined while it is not all there */
  #step(): Buffer | undefined {
    if (this.#stage === 'greeting') return this.#greet()
    if (this.#stage === 'replies') return this.#reply()
    this.#kept = Buffer.alloc(0)
    return undefined
  }

  #take(bytes: number): Buffer {
    const taken = this.#kept.subarray(0, bytes)
    this.#kept = this.#kept.subarray(bytes)
    return taken
  }

  #greet(): Buffer | undefined {
    if (this.#kept.length >= 8 && this.#kept.readBigUInt64BE(0) !== serverMagic)
      throw fail('NotNbd', 'what answers there does not speak NBD')
    if (this.#kept.length >= 16 && this.#kept.readBigUInt64BE(8) !== optionMagic) {
      if (this.#kept.readBigUInt64BE(8) !== oldMagic)
        throw fail('NotNbd', 'what answers there does not speak NBD')
      throw fail('NbdTooOld', 'it speaks the old style of NBD, which has no export names')
    }
    if (this.#kept.length < greetingBytes) return undefined
    const server = this.#take(greetingBytes).readUInt16BE(16)
    if ((server & fixedNewstyle) === 0) throw fail('NbdTooOld', 'it does not speak the fixed newstyle of NBD')
    this.#stage = 'replies'
    return Buffer.concat([clientFlags(server), infoRequest(this.#exportName)])
  }

  #reply(): Buffer | undefined {
    if (this.#kept.length < headerBytes) return undefined
    const [magic, to] = [this.#kept.readBigUInt64BE(0), this.#kept.readUInt32BE(8)]
    const [type, length] = [this.#kept.readUInt32BE(12), this.#kept.readUInt32BE(16)]
    if (magic !== replyMagic || to !== options.info) throw fail('NotNbd', 'its answer is not one of NBD')
    if (length > longestReply) throw fail('NotNbd', `it announces an answer of ${length} bytes`)
    if (this.#kept.length < headerBytes + length) return undefined
    this.#replies += 1
    if (this.#replies > mostReplies) throw fail('NotNbd', 'its answers do not end')
    this.#take(headerBytes)
    return this.#judge(type, this.#take(length))
  }

  #judge(type: number, data: Buffer): Buffer {
    if (type >= errorBit) throw refusal(type - errorBit, data)
    if (type === replies.info) this.#found = exportInfo(data) ?? this.#found
    else if (type === replies.ack) {
      if (!this.#found) throw fail('NotNbd', 'it says nothing of the export')
      this.#result = this.#found
      this.#stage = 'done'
      return abortRequest
    }
    // Other information, and replies that are newer than this: the document lets a client pass over them.
    return Buffer.alloc(0)
  }
}

function refusal(error: number, data: Buffer): PlasmaError {
  const [code, words] = refusals[error] ?? (['ExportRefused', `it refuses with error ${error}`] as const)
  const text = told(data)
  return fail(code, text === '' ? words : `${words} ("${text}")`)
}

/** NBD_INFO_EXPORT; undefined for other information. */
function exportInfo(data: Buffer): ExportInfo | undefined {
  if (data.length < 2) throw fail('NotNbd', 'its answer is cut off')
  if (data.readUInt16BE(0) !== infos.export) return undefined
  if (data.length !== 12) throw fail('NotNbd', 'what it says of the export has the wrong length')
  const transmission = data.readUInt16BE(10)
  const has = (flag: number) => (transmission & flag) !== 0
  return { size: data.readBigUInt64BE(2), readOnly: has(flags.hasFlags) && has(flags.readOnly) }
}
