import type { Duplex } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import { Decoder, encode, type Message } from './codec.ts'
import { CommandError, HandshakeError, Interrupted, ProtocolError, QmpTimeout } from './errors.ts'
import type { QmpEvent } from './types.ts'

export type SessionState = 'connecting' | 'running' | 'closed'

export interface SessionOptions {
  readonly clock: Clock
  /** For greeting and negotiation together, ms. */
  readonly deadlineMs?: number
}

export interface ExecuteOptions {
  readonly timeoutMs?: number
  /** Out of band: answered even while another command runs. Only where the server offered it. */
  readonly oob?: boolean
}

interface Pending {
  readonly command: string
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
  readonly cancel: () => void
}

const maxPending = 256
const defaultTimeoutMs = 10_000
const defaultDeadlineMs = 5_000

/**
 * One QMP session over a byte stream: connecting (greeting, capabilities), running, closed. Greeting and negotiation
 * are done before anybody can send a command (docs/interop/qmp-spec.rst section 4).
 */
export class QmpSession {
  readonly #stream: Duplex
  readonly #clock: Clock
  readonly #decoder = new Decoder()
  readonly #pending = new Map<string, Pending>()
  readonly #listeners = new Set<(event: QmpEvent) => void>()
  readonly #closed = Promise.withResolvers<{ readonly error?: Error }>()
  readonly #greeting = Promise.withResolvers<Message>()
  #state: SessionState = 'connecting'
  #nextId = 1
  #oob = false

  private constructor(stream: Duplex, clock: Clock) {
    this.#stream = stream
    this.#clock = clock
    // A session that closes while nobody waits for the greeting is no unhandled rejection.
    this.#greeting.promise.catch(() => {})
    stream.on('data', (chunk: Buffer) => this.#receive(chunk))
    stream.once('error', (error) => this.#end(error))
    stream.once('close', () => this.#end())
    stream.once('end', () => this.#end())
  }

  /** Opens a session. On failure the stream is destroyed. @throws HandshakeError, QmpTimeout, Interrupted */
  static async open(stream: Duplex, options: SessionOptions): Promise<QmpSession> {
    const { clock, deadlineMs = defaultDeadlineMs } = options
    const session = new QmpSession(stream, clock)
    const cancel = clock.after(deadlineMs, () =>
      session.#end(new QmpTimeout('QmpTimeout', `no QMP greeting within ${deadlineMs} ms`)),
    )
    try {
      const greeting = await session.#greeting.promise
      const offered = (greeting['QMP'] as { capabilities?: unknown }).capabilities
      session.#oob = Array.isArray(offered) && offered.includes('oob')
      await session.#send('qmp_capabilities', session.#oob ? { enable: ['oob'] } : undefined, {
        timeoutMs: deadlineMs,
      })
      session.#state = 'running'
      return session
    } catch (error) {
      session.#end(error as Error)
      throw error instanceof CommandError
        ? new HandshakeError('Negotiation', error.message, { cause: error })
        : error
    } finally {
      cancel()
    }
  }

  get state(): SessionState {
    return this.#state
  }

  /** Whether out-of-band commands were negotiated. */
  get oob(): boolean {
    return this.#oob
  }

  /** Resolves when the session has ended, with the error that ended it, if any. Never rejects. */
  get closed(): Promise<{ readonly error?: Error }> {
    return this.#closed.promise
  }

  /** QEMU's `return` value. @throws CommandError, QmpTimeout, Interrupted */
  execute(command: string, args?: Message, options: ExecuteOptions = {}): Promise<unknown> {
    if (this.#state !== 'running')
      return Promise.reject(new Interrupted('Interrupted', `${command}: the session is ${this.#state}`))
    return this.#send(command, args, options)
  }

  /** @returns unsubscribe */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#end()
  }

  #send(command: string, args: Message | undefined, options: ExecuteOptions): Promise<unknown> {
    const { timeoutMs = defaultTimeoutMs, oob = false } = options
    if (this.#pending.size >= maxPending)
      return Promise.reject(new Interrupted('Busy', `${command}: ${maxPending} commands wait already`))
    const id = `p${this.#nextId++}`
    const verb = oob && this.#oob ? 'exec-oob' : 'execute'
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(timeoutMs, () => {
        // A late answer finds no one and is dropped.
        this.#pending.delete(id)
        reject(new QmpTimeout('QmpTimeout', `${command} got no answer within ${timeoutMs} ms`))
      })
      this.#pending.set(id, { command, resolve, reject, cancel })
      this.#stream.write(encode({ [verb]: command, ...(args && { arguments: args }), id }))
    })
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) this.#dispatch(message)
    } catch (error) {
      this.#end(error as Error)
    }
  }

  #dispatch(message: Message): void {
    if ('QMP' in message) return this.#greet(message)
    if (typeof message['event'] === 'string') return this.#emit(message as unknown as QmpEvent)
    const { id, error } = message
    if (error !== undefined && id === undefined) {
      throw new ProtocolError(
        'Unparsed',
        `QEMU could not read what it was sent: ${JSON.stringify(error).slice(0, 200)}`,
      )
    }
    const pending = typeof id === 'string' ? this.#pending.get(id) : undefined
    if (!pending || typeof id !== 'string') return
    this.#pending.delete(id)
    pending.cancel()
    if (error === undefined) return pending.resolve(message['return'])
    const { class: errorClass = 'GenericError', desc = '' } = error as { class?: string; desc?: string }
    pending.reject(new CommandError(pending.command, errorClass, desc))
  }

  #greet(message: Message): void {
    const greeting = message['QMP']
    if (typeof greeting === 'object' && greeting !== null) return this.#greeting.resolve(message)
    throw new HandshakeError('Greeting', 'the greeting is not one of QMP')
  }

  #emit(event: QmpEvent): void {
    for (const listener of [...this.#listeners]) listener(event)
  }

  #end(error?: Error): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#stream.destroy()
    const why = error ? messageOf(error) : 'the connection was closed'
    this.#greeting.reject(error ?? new Interrupted('Interrupted', why))
    for (const { command, reject, cancel } of this.#pending.values()) {
      cancel()
      reject(new Interrupted('Interrupted', `${command}: ${why}`, { cause: error }))
    }
    this.#pending.clear()
    this.#listeners.clear()
    this.#closed.resolve(error ? { error } : {})
  }
}
