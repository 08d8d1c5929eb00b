import { ProtocolError } from './errors.ts'

/** Longer than any answer QEMU gives (query-qmp-schema is about 200 kB). */
export const defaultLimit = 16 * 1024 * 1024
const smallest = 4096
const newline = 10

export type Message = Readonly<Record<string, unknown>>

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Bytes to messages: one JSON object a line, as QEMU's monitor writes them (docs/interop/qmp-spec.rst section 2.1).
 * No I/O. Holds at most `limit` bytes, whatever the pieces in which they come; after an error it is of no more use.
 */
export class Decoder {
  readonly #limit: number
  /** The beginning of a message whose end has not come yet is `#held.subarray(0, #length)`. */
  #held = Buffer.alloc(0)
  #length = 0

  /** @param limit bytes of one message, without its line end */
  constructor(limit = defaultLimit) {
    this.#limit = limit
  }

  /** Bytes of an unfinished message. */
  get held(): number {
    return this.#length
  }

  /**
   * The messages that `chunk` completes, one at a time: those before a bad one are still given.
   * @throws ProtocolError for what is no UTF-8, no JSON object, or too long
   */
  *decode(chunk: Uint8Array): Generator<Message, void> {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    let from = 0
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, from)) {
      const text = textOf(this.#line(bytes.subarray(from, end)))
      from = end + 1
      if (text !== '') yield parseMessage(text)
    }
    this.#hold(bytes.subarray(from))
  }

  /** A whole line. Not copied where nothing was held: it is read before the next chunk comes. */
  #line(last: Buffer): Buffer {
    if (this.#length === 0) {
      this.#check(last.length)
      return last
    }
    this.#hold(last)
    const line = this.#held.subarray(0, this.#length)
    this.#length = 0
    // One large answer must not keep its memory for the life of a session.
    this.#held = Buffer.alloc(0)
    return line
  }

  #hold(part: Buffer): void {
    const length = this.#length + part.length
    this.#check(length)
    if (length > this.#held.length) {
      const larger = Buffer.alloc(Math.min(this.#limit, Math.max(smallest, length, 2 * this.#held.length)))
      this.#held.copy(larger, 0, 0, this.#length)
      this.#held = larger
    }
    part.copy(this.#held, this.#length)
    this.#length = length
  }

  #check(length: number): void {
    if (length <= this.#limit) return
    throw new ProtocolError('MessageTooLong', `a message is longer than ${this.#limit} bytes`)
  }
}

function textOf(line: Buffer): string {
  try {
    return utf8.decode(line).trim()
  } catch (error) {
    throw new ProtocolError('BadEncoding', 'a message is not UTF-8', { cause: error })
  }
}

function parseMessage(text: string): Message {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new ProtocolError('BadJson', `not JSON: ${text.slice(0, 80)}`, { cause: error })
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Message
  throw new ProtocolError('BadMessage', `not a JSON object: ${text.slice(0, 80)}`)
}

/**
 * A message as bytes; ASCII only, so that no split can fall into a character.
 * @throws ProtocolError `BadText` for half a surrogate pair: QEMU can't read it, and its error would name no command
 */
export function encode(message: Message): string {
  const text = JSON.stringify(message, (key, value: unknown) => {
    if (key.isWellFormed() && (typeof value !== 'string' || value.isWellFormed())) return value
    throw new ProtocolError('BadText', `${key} holds half a character, which is no Unicode text`)
  })
  return `${text.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)}\n`
}

/** What came, short enough for an error. Never throws, however deep it is nested. */
export function excerpt(value: unknown): string {
  try {
    return (JSON.stringify(value) ?? String(value)).slice(0, 200)
  } catch {
    return `something of type ${typeof value}`
  }
}
