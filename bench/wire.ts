import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import { readCredentials } from '../src/auth/credentials.ts'
import { signRequest } from '../src/auth/sign.ts'
import type { Server } from './lab.ts'

/** Longest wait for an answer, ms. */
const silentMs = 60_000

/** What is sent: head and body as bytes, signed when this is called. Each is good for one use within five minutes. */
export function signed(server: Server, method: string, path: string, body?: unknown): Buffer {
  const url = new URL(path, `https://127.0.0.1:${server.port}`)
  const text = body === undefined ? '' : JSON.stringify(body)
  const headers = signRequest({
    ...{ method, url, body: text, now: Date.now(), region: 'local', service: 'plasmavmc' },
    headers: text === '' ? {} : { 'content-type': 'application/json' },
    credentials: readCredentials(join(server.dir, 'd')),
  })
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const length = text === '' ? '' : `content-length: ${Buffer.byteLength(text)}\r\n`
  return Buffer.from(
    `${method} ${url.pathname}${url.search} HTTP/1.1\r\n${lines.join('')}${length}\r\n${text}`,
  )
}

/**
 * A connection whose client does no more than it must, as both share the processors with the server: what is sent was
 * signed before, and of an answer its status and length are read.
 */
export class Wire {
  readonly #socket: TLSSocket
  #take: (piece: Buffer) => void = () => {}
  #fail: (error: Error) => void = () => {}

  private constructor(socket: TLSSocket) {
    this.#socket = socket
    socket.on('data', (piece: Buffer) => this.#take(piece))
    socket.on('error', (error) => this.#fail(error))
    socket.setTimeout(silentMs, () => socket.destroy(new Error(`nothing came for ${silentMs / 1_000} s`)))
  }

  static async open(server: Server): Promise<Wire> {
    const ca = readFileSync(join(server.dir, 'd', 'pki', 'ca.crt'))
    const socket = connect({ host: '127.0.0.1', port: server.port, ca })
    socket.setNoDelay(true)
    await new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve)
      socket.once('error', reject)
    })
    return new Wire(socket)
  }

  /** @throws Error where the answer is not that something was created */
  create(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#fail = reject
      let left: number | undefined
      this.#take = (piece) => {
        left ??= answerLength(piece, reject)
        left -= piece.length
        if (left === 0) resolve()
      }
      this.#socket.write(request)
    })
  }

  /** Begins a watch. @returns when a piece of it holds a text, in monotonic ms */
  watch(request: Buffer): (text: string) => Promise<number> {
    this.#socket.write(request)
    return (text) =>
      new Promise((resolve, reject) => {
        this.#fail = reject
        this.#take = (piece) => {
          if (piece.includes(text)) resolve(performance.now())
        }
      })
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** Bytes of an answer from its beginning, all of whose head came in one piece. */
function answerLength(piece: Buffer, refused: (error: Error) => void): number {
  const end = piece.indexOf('\r\n\r\n')
  const head = piece.toString('latin1', 0, end)
  const [, length] = /\r\ncontent-length: (\d+)/i.exec(head) ?? []
  if (!head.startsWith('HTTP/1.1 201 ') || length === undefined) refused(new Error(`answered: ${piece}`))
  return end + 4 + Number(length)
}
