import { ProtocolError } from './errors.ts'

/** Longer than any answer QEMU gives (query-qmp-schema is about 200 kB). */
const defaultLimit = 16 * 1024 * 1024

export type Message = Readonly<Record<string, unknown>>

/**
 * Bytes to messages: one JSON object a line, as QEMU's monitor writes them (docs/interop/qmp-spec.rst section 2.1).
 * No I/O; bounded by `limit` bytes a message.
 */
export class Decoder {
  readonly #limit: number
  #chunks: Buffer[] = []
  #bytes = 0

  constructor(limit = defaultLimit) {
    this.#limit = limit
  }

  /** The messages that `chunk` completes. @throws ProtocolError for what is no UTF-8, no JSON object, or too long */
  push(chunk: Uint8Array): Message[] {
    const messages: Message[] = []
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    for (let at = rest.indexOf(10); at >= 0; at = rest.indexOf(10)) {
      this.#keep(rest.subarray(0, at))
      const line = this.#take()
      if (line.length > 0) messages.push(parseMessage(line))
      rest = rest.subarray(at + 1)
    }
    if (rest.length > 0) this.#keep(Buffer.from(rest))
    return messages
  }

  #keep(part: Buffer): void {
    this.#bytes += part.length
    if (this.#bytes > this.#limit)
      throw new ProtocolError('MessageTooLong', `a message is longer than ${this.#limit} bytes`)
    this.#chunks.push(part)
  }

  #take(): string {
    const whole = Buffer.concat(this.#chunks)
    this.#chunks = []
    this.#bytes = 0
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(whole).trim()
    } catch (error) {
      throw new ProtocolError('BadEncoding', 'a message is not UTF-8', { cause: error })
    }
  }
}

function parseMessage(line: string): Message {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    throw new ProtocolError('BadJson', `not JSON: ${line.slice(0, 80)}`, { cause: error })
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Message
  throw new ProtocolError('BadMessage', `not a JSON object: ${line.slice(0, 80)}`)
}

/** A message as bytes; ASCII only, so that no split can fall into a character. */
export function encode(message: Message): string {
  const text = JSON.stringify(message)
  return `${text.replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)}\n`
}
