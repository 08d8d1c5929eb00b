import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { z } from 'zod'
import type { Clock } from '../lib/clock.ts'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { hostClock } from './guard-clock.ts'

/**
 * How guards, and the leader, ask each other. One datagram is a question, one its answer: there is no connection that
 * could hang, a question that is lost is asked again within its deadline, and an answer that comes too late counts for
 * nothing anyway. Each carries an HMAC by the cluster's key; that of an answer covers its question with its nonce, so
 * that it answers no other one. A question that is replayed can make a guard cautious for some seconds, nothing more.
 */
export type PeerQuestion =
  | { readonly ask: 'lost' }
  | { readonly ask: 'consent'; readonly host: string; readonly resourceVersion: string }

export interface PeerReply {
  /** For `lost`: lost, have or undecided; for `consent`: yes or no. */
  readonly word: 'lost' | 'have' | 'undecided' | 'yes' | 'no'
  readonly why: string
}

/** No datagram is larger: it fits every network in one piece. Bytes. */
const maxBytes = 1_200
/** Within its deadline a question is sent again this often, ms. */
const againMs = 250
const maxRemembered = 4_096
const maxUnderWay = 256

const name = z.string().min(1).max(253)
const base = { v: z.literal(1), nonce: z.string().length(32), from: name, to: name }
const questionShape = z.discriminatedUnion('ask', [
  z.object({ ...base, ask: z.literal('lost') }),
  z.object({ ...base, ask: z.literal('consent'), host: name, resourceVersion: z.string().max(40) }),
])
const answerShape = z.object({
  v: z.literal(1),
  from: name,
  word: z.enum(['lost', 'have', 'undecided', 'yes', 'no']),
  why: z.string().max(300),
})
const packetShape = z.object({ body: z.string(), mac: z.string().length(64) })

function mac(key: Buffer, ...parts: readonly string[]): Buffer {
  const hmac = createHmac('sha256', key)
  for (const part of parts) hmac.update(`${Buffer.byteLength(part)}:${part}`)
  return hmac.digest()
}

const seal = (body: string, by: Buffer) => Buffer.from(JSON.stringify({ body, mac: by.toString('hex') }))

/** The body of a packet, where its MAC is right. */
function unseal(packet: Buffer, expected: (body: string) => Buffer): string | undefined {
  if (packet.length > maxBytes) return undefined
  try {
    const { body, mac: given } = packetShape.parse(JSON.parse(packet.toString()))
    const bytes = Buffer.from(given, 'hex')
    const right = expected(body)
    return bytes.length === right.length && timingSafeEqual(bytes, right) ? body : undefined
  } catch {
    return undefined
  }
}

function parsed<T>(shape: z.ZodType<T>, body: string | undefined): T | undefined {
  if (body === undefined) return undefined
  try {
    return shape.parse(JSON.parse(body))
  } catch {
    return undefined
  }
}

/** `host:port` or `[host]:port`; undefined where it is neither. */
export function parsePeer(text: string): { readonly host: string; readonly port: number } | undefined {
  const [, host = '', port = ''] = /^\[?([^[\]]+?)\]?:(\d{1,5})$/.exec(text) ?? []
  return host === '' || Number(port) > 65_535 ? undefined : { host, port: Number(port) }
}

export const formatPeer = ({ host, port }: { readonly host: string; readonly port: number }): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`

export interface PeerServerOptions {
  readonly listen: { readonly host: string; readonly port: number }
  /** Our name: questions to others are not answered. */
  readonly host: string
  /** The key of the cluster; without one nothing is answered. */
  readonly key: () => Buffer | undefined
  readonly answer: (question: PeerQuestion, from: string) => Promise<PeerReply>
}

/** Answers other hosts. */
export class PeerServer {
  readonly port: number
  readonly #socket: Socket
  readonly #options: PeerServerOptions
  /** By nonce: a question that is sent again gets the answer that it got. */
  readonly #answers = new Map<string, Promise<Buffer>>()
  #underWay = 0

  private constructor(socket: Socket, options: PeerServerOptions) {
    this.#socket = socket
    this.#options = options
    this.port = socket.address().port
    socket.on('message', (packet, { address, port }) => void this.#asked(packet, { address, port }))
    // Such as that somebody who asked is gone.
    socket.on('error', () => {})
  }

  /** @throws PlasmaError `PortTaken`, `ListenFailed` */
  static async open(options: PeerServerOptions): Promise<PeerServer> {
    const { host, port } = options.listen
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ port, address: host }, resolve)
    }).catch((error: unknown) => {
      socket.close()
      const taken = errnoOf(error) === 'EADDRINUSE'
      const what = `--peer-listen: ${formatPeer(options.listen)} (UDP)`
      throw new PlasmaError(
        taken ? 'PortTaken' : 'ListenFailed',
        taken ? `${what} is in use` : `${what}: ${messageOf(error)}`,
        { hint: 'choose another address or port with --peer-listen', cause: error },
      )
    })
    socket.removeAllListeners('error')
    return new PeerServer(socket, options)
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(resolve))
  }

  async #asked(packet: Buffer, back: { readonly address: string; readonly port: number }): Promise<void> {
    const { host, key: keyOf } = this.#options
    const key = keyOf()
    if (!key) return
    const body = unseal(packet, (text) => mac(key, 'question', text))
    const question = parsed(questionShape, body)
    if (!question || body === undefined || question.to !== host) return
    let answer = this.#answers.get(question.nonce)
    if (!answer) {
      if (this.#underWay >= maxUnderWay) return
      answer = this.#answer(question, body, key)
      this.#answers.set(question.nonce, answer)
      const [oldest] = this.#answers.keys()
      if (this.#answers.size > maxRemembered && oldest !== undefined) this.#answers.delete(oldest)
    }
    const sealed = await answer.catch(() => undefined)
    if (sealed) this.#socket.send(sealed, back.port, back.address, () => {})
  }

  async #answer(question: z.output<typeof questionShape>, asked: string, key: Buffer): Promise<Buffer> {
    this.#underWay += 1
    try {
      const { word, why } = await this.#options.answer(question, question.from)
      const body = JSON.stringify({ v: 1, from: this.#options.host, word, why: why.slice(0, 200) })
      return seal(body, mac(key, 'answer', asked, body))
    } finally {
      this.#underWay -= 1
    }
  }
}

export interface AskOptions {
  /** Where the host that is asked listens: `host:port`. */
  readonly address: string
  readonly to: string
  readonly from: string
  readonly key: Buffer
  readonly timeoutMs: number
  readonly clock?: Clock
  /** Ends the wait for an answer; nothing is asked where it is aborted already. */
  readonly signal?: AbortSignal
}

/**
 * Asks a host.
 * @returns its answer, with when the question was sent by `clock`: from then on it counts. Undefined where none came in
 *   time, for whatever reason; never rejects.
 */
export function askPeer(
  question: PeerQuestion,
  options: AskOptions,
): Promise<(PeerReply & { readonly askedAt: number }) | undefined> {
  const { to, from, key, timeoutMs, clock = hostClock, signal } = options
  const peer = parsePeer(options.address)
  if (!peer || signal?.aborted) return Promise.resolve(undefined)
  const body = JSON.stringify({ v: 1, nonce: randomBytes(16).toString('hex'), from, to, ...question })
  const packet = seal(body, mac(key, 'question', body))
  const askedAt = clock.elapsed()
  return new Promise((resolve) => {
    const socket = createSocket(peer.host.includes(':') ? 'udp6' : 'udp4')
    let cancelAgain = () => {}
    let open = true
    const end = (reply?: PeerReply) => {
      if (!open) return
      open = false
      cancelAgain()
      cancelEnd()
      signal?.removeEventListener('abort', onAbort)
      socket.close()
      resolve(reply && { ...reply, askedAt })
    }
    const onAbort = () => end()
    signal?.addEventListener('abort', onAbort, { once: true })
    const cancelEnd = clock.after(timeoutMs, () => end())
    // Nobody listens there, or not yet: until the deadline that may change.
    socket.on('error', () => {})
    socket.on('message', (answer) => {
      const said = unseal(answer, (text) => mac(key, 'answer', body, text))
      const reply = parsed(answerShape, said)
      if (reply?.from === to) end({ word: reply.word, why: reply.why })
    })
    const send = () => {
      if (!open) return
      socket.send(packet, peer.port, peer.host, () => {})
      cancelAgain = clock.after(againMs, send)
    }
    send()
  })
}
