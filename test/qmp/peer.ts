import { type Duplex, duplexPair } from 'node:stream'
import type { Clock } from '../../src/lib/clock.ts'
import { Decoder, type Message } from '../../src/qmp/codec.ts'
import { QmpSession, type SessionOptions } from '../../src/qmp/session.ts'

/** Time that passes when it is told to. */
export class ManualClock implements Clock {
  #elapsed = 0
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>()

  /** Timers that have neither fired nor been cancelled. */
  get timers(): number {
    return this.#timers.size
  }

  now(): number {
    return this.#elapsed
  }

  elapsed(): number {
    return this.#elapsed
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { at: this.#elapsed + ms, fn }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  advance(ms: number): void {
    this.#elapsed += ms
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#elapsed || !this.#timers.delete(timer)) continue
      timer.fn()
    }
  }
}

export const version = { qemu: { major: 7, minor: 2, micro: 22 }, package: '' }
export const greeting = { QMP: { version, capabilities: ['oob'] } }

/** The other side of a session: says what a test tells it to say. */
export class Peer {
  readonly stream: Duplex
  /** Everything that the session sent and `next` has not taken. */
  readonly received: Message[] = []
  readonly #waiting: (() => void)[] = []
  #ended = false

  constructor(stream: Duplex) {
    this.stream = stream
    const decoder = new Decoder()
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => {
      this.received.push(...decoder.decode(chunk))
      this.#wake()
    })
    stream.on('close', () => {
      this.#ended = true
      this.#wake()
    })
  }

  say(...messages: readonly unknown[]): void {
    this.raw(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''))
  }

  raw(text: string | Uint8Array): void {
    this.stream.write(text)
  }

  /** The next message of the session. */
  async next(): Promise<Message> {
    while (this.received.length === 0) {
      if (this.#ended) throw new Error('the session has ended')
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
    }
    return this.received.shift() as Message
  }

  /** The next `count` messages, in the order of their coming. */
  async take(count: number): Promise<Message[]> {
    const messages: Message[] = []
    while (messages.length < count) messages.push(await this.next())
    return messages
  }

  /** Answers the next command. @returns it */
  async answer(value: unknown = {}): Promise<Message> {
    const command = await this.next()
    this.say({ return: value, id: command['id'] })
    return command
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  async handshake(hello: unknown = greeting): Promise<Message> {
    this.say(hello)
    return this.answer()
  }
}

export function pair(): { ours: Duplex; peer: Peer } {
  const [ours, theirs] = duplexPair()
  return { ours, peer: new Peer(theirs) }
}

/** A running session and its peer. */
export async function running(options: Partial<SessionOptions> = {}, hello: unknown = greeting) {
  const { ours, peer } = pair()
  const clock = new ManualClock()
  const opening = QmpSession.open(ours, { clock, ...options })
  await peer.handshake(hello)
  return { session: await opening, peer, clock, ours }
}

/** Resolves when everything that is on its way over a pair of streams has arrived. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i += 1) await new Promise((resolve) => setImmediate(resolve))
}
