import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { z } from 'zod'
import type { Clock } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import { Decoder, encode, excerpt, type Message } from './codec.ts'
import { type CallOf, type CommandName, commands, parseAnswer, type ResultOf } from './commands.ts'
import { Busy, CommandError, HandshakeError, Interrupted, ProtocolError, QmpTimeout } from './errors.ts'
import { EventStream } from './event-stream.ts'
import { type EventOf, parseEvent, type QmpEvent } from './events.ts'
import { Pending } from './pending.ts'
import { type VersionInfo, versionInfo } from './types.ts'

/**
 * `connecting`: only within `open`; nothing can be executed.
 * `running`: from when `open` resolves.
 * `closed`: for good. The stream is destroyed, every command that waited has been rejected, every event stream has
 * ended, no timer is left, and `closed` has resolved. `open` that rejects leaves this behind, too.
 */
export type SessionState = 'connecting' | 'running' | 'closed'

export interface SessionOptions {
  readonly clock: Clock
  /** For greeting and negotiation together, ms. */
  readonly deadlineMs?: number
  /** Gives up opening. */
  readonly signal?: AbortSignal | undefined
  /** Beginning of the ids of commands; must differ from that of every other session with the same QEMU. */
  readonly tag?: string
}

export interface ExecuteOptions {
  /** In place of the command's own, ms. */
  readonly timeoutMs?: number
  /** Stops waiting; QEMU may do it all the same. */
  readonly signal?: AbortSignal | undefined
  /** In band even where the command could go out of band. */
  readonly inBand?: boolean
}

export interface EventsOptions {
  /** Ends the iteration with the signal's reason. */
  readonly signal?: AbortSignal | undefined
  /** Unread events that are kept. */
  readonly limit?: number
}

interface Sink {
  event(event: QmpEvent): void
  end(error?: Error): void
}

const defaultDeadlineMs = 5_000
const defaultEvents = 1_000
const maxPending = 256
/** What Node may hold for a QEMU that does not read, beside the kernel's own buffer. */
const maxUnsentBytes = 1024 * 1024

const greetingShape = z.object({
  QMP: z.object({ version: versionInfo, capabilities: z.array(z.unknown()) }),
})
type Greeting = z.output<typeof greetingShape>['QMP']

/**
 * One QMP session over a byte stream. Greeting and negotiation are done before anybody can send a command
 * (docs/interop/qmp-spec.rst section 4).
 */
export class QmpSession {
  readonly #stream: Duplex
  readonly #decoder = new Decoder()
  readonly #pending: Pending
  readonly #sinks = new Set<Sink>()
  readonly #closed = Promise.withResolvers<{ readonly error?: Error }>()
  readonly #greeting = Promise.withResolvers<Greeting>()
  #state: SessionState = 'connecting'
  #greeted: Greeting | undefined
  #oob = false
  #fault: Error | undefined

  private constructor(stream: Duplex, { clock, tag = randomBytes(6).toString('hex') }: SessionOptions) {
    this.#stream = stream
    this.#pending = new Pending({ clock, tag, limit: maxPending })
    // A session that closes while nobody waits for the greeting is no unhandled rejection.
    this.#greeting.promise.catch(() => {})
    stream.on('data', (chunk: Buffer) => this.#receive(chunk))
    stream.on('error', (error) => this.#end(error))
    stream.once('close', () => this.#ended())
    stream.once('end', () => this.#ended())
  }

  /**
   * Opens a session. On failure it is closed and the stream destroyed.
   * @throws HandshakeError, QmpTimeout, Interrupted, the signal's reason, or the stream's error
   */
  static async open(stream: Duplex, options: SessionOptions): Promise<QmpSession> {
    const { clock, deadlineMs = defaultDeadlineMs, signal } = options
    const session = new QmpSession(stream, options)
    const onAbort = () => session.#end(signal?.reason)
    const cancel = clock.after(deadlineMs, () => session.#end(session.#tooLate(deadlineMs)))
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      signal?.throwIfAborted()
      await session.#negotiate(deadlineMs)
      return session
    } catch (error) {
      session.#end(error as Error)
      throw handshakeFault(session.#fault ?? (error as Error))
    } finally {
      cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }

  get state(): SessionState {
    return this.#state
  }

  /** Whether out-of-band commands were negotiated. */
  get oob(): boolean {
    return this.#oob
  }

  /** QEMU's version, as it greeted. */
  get version(): VersionInfo {
    return this.#greeted!.version
  }

  /** Resolves when the session has ended, with the error that ended it, if any. Never rejects. */
  get closed(): Promise<{ readonly error?: Error }> {
    return this.#closed.promise
  }

  /**
   * Sends a command and waits for its answer; out of band where QEMU takes it so.
   * @throws CommandError, QmpTimeout, Interrupted, Busy, ProtocolError `BadAnswer` or `BadText`, the signal's reason
   */
  async execute<N extends CommandName>(name: N, ...call: CallOf<N, ExecuteOptions>): Promise<ResultOf<N>> {
    const [args, options = {}] = call
    const { timeoutMs = commands[name].timeoutMs, signal, inBand = false } = options
    const verb = commands[name].oob && this.#oob && !inBand ? 'exec-oob' : 'execute'
    return parseAnswer(name, await this.#send(verb, name, args, { timeoutMs, signal }))
  }

  /** The listener must not throw; one that does is told as a warning of the process. @returns unsubscribe */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    const sink: Sink = { event: listener, end: () => {} }
    this.#sinks.add(sink)
    return () => this.#sinks.delete(sink)
  }

  /**
   * The events of these names (`other` for those without a type) from now on: subscribe, then send what causes them.
   * Bounded; see EventStream for a reader that is too slow. Ends quietly after `close`, with Interrupted when the
   * connection ends otherwise.
   */
  events<N extends QmpEvent['event']>(
    names: readonly N[],
    { signal, limit = defaultEvents }: EventsOptions = {},
  ): EventStream<EventOf<N>> {
    const wanted: ReadonlySet<string> = new Set(names)
    const onAbort = () => stream.finish(signal?.reason)
    const stream = new EventStream<EventOf<N>>(limit, () => {
      this.#sinks.delete(sink)
      signal?.removeEventListener('abort', onAbort)
    })
    const sink: Sink = {
      event: (event) => wanted.has(event.event) && stream.push(event as EventOf<N>),
      end: (error) => stream.finish(error),
    }
    if (signal?.aborted) onAbort()
    else if (this.#state === 'closed')
      stream.finish(new Interrupted('Closed', 'events: the session is closed'))
    else {
      this.#sinks.add(sink)
      signal?.addEventListener('abort', onAbort, { once: true })
    }
    return stream
  }

  close(): void {
    this.#end()
  }

  async #negotiate(timeoutMs: number): Promise<void> {
    const { capabilities } = await this.#greeting.promise
    this.#oob = capabilities.includes('oob')
    const args = this.#oob ? { enable: ['oob'] } : undefined
    await this.#send('execute', 'qmp_capabilities', args, { timeoutMs })
    // It may have ended between the answer and here: a closed session never runs again.
    if (this.#state === 'closed') throw new Interrupted('Interrupted', 'the connection ended at once')
    this.#state = 'running'
  }

  #tooLate(ms: number): QmpTimeout {
    const what = this.#greeted ? 'QMP negotiation got no answer' : 'no QMP greeting'
    const hint = 'QEMU hangs, or another client holds its monitor, which serves one at a time'
    return new QmpTimeout('QmpTimeout', `${what} within ${ms} ms`, { hint })
  }

  #send(
    verb: 'execute' | 'exec-oob',
    command: string,
    args: Message | undefined,
    wait: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
  ): Promise<unknown> {
    return this.#pending.add(command, wait, (id) => {
      // Nothing would ever end the wait for an answer: `fail` has come and gone.
      if (this.#state === 'closed')
        throw new Interrupted('Closed', `${command}: the session is closed, nothing was sent`)
      if (this.#stream.writableLength > maxUnsentBytes)
        throw new Busy('Busy', `${command}: QEMU has stopped reading, nothing was sent`)
      this.#stream.write(encode({ [verb]: command, ...(args && { arguments: args }), id }))
    })
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.decode(chunk)) {
        // A listener may have closed the session.
        if (this.#state === 'closed') return
        this.#dispatch(message)
      }
    } catch (error) {
      this.#end(error as Error)
    }
  }

  #dispatch(message: Message): void {
    if ('QMP' in message) return this.#greet(message)
    if (typeof message['event'] === 'string') return this.#emit(parseEvent(message))
    if (!('return' in message || 'error' in message))
      throw new ProtocolError('BadMessage', `neither answer nor event: ${excerpt(message)}`)
    if (!('id' in message) && this.#greeted && 'error' in message) {
      const what = excerpt(message['error'])
      throw new ProtocolError('Unparsed', `QEMU could not read what it was sent: ${what}`)
    }
    this.#pending.answer(message)
  }

  #greet(message: Message): void {
    if (this.#greeted) throw new ProtocolError('Greeting', 'QEMU greeted twice')
    const greeting = greetingShape.safeParse(message)
    if (!greeting.success)
      throw new HandshakeError('Greeting', `the greeting is not one of QMP: ${excerpt(message)}`)
    this.#greeted = greeting.data.QMP
    this.#greeting.resolve(greeting.data.QMP)
  }

  #emit(event: QmpEvent): void {
    for (const sink of [...this.#sinks]) {
      try {
        sink.event(event)
      } catch (error) {
        process.emitWarning(error instanceof Error ? error : String(error))
      }
    }
  }

  /** The peer is gone. */
  #ended(): void {
    const { held } = this.#decoder
    if (held === 0) return this.#end(new Interrupted('Interrupted', 'QEMU closed the connection'))
    this.#end(new Interrupted('Interrupted', `the connection ended within a message, after ${held} bytes`))
  }

  #end(error?: Error): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#fault = error
    this.#stream.destroy()
    const why = error ? messageOf(error) : 'the session was closed'
    this.#greeting.reject(error ?? new Interrupted('Interrupted', why))
    this.#pending.fail(why, error)
    const told = error && new Interrupted('Interrupted', `events: ${why}`, { cause: error })
    for (const sink of [...this.#sinks]) sink.end(told)
    this.#sinks.clear()
    this.#closed.resolve(error ? { error } : {})
  }
}

/** Why opening failed: whatever is no QMP is a failed handshake. */
function handshakeFault(error: Error): Error {
  if (error instanceof CommandError) return new HandshakeError('Negotiation', error.message, { cause: error })
  if (error instanceof ProtocolError)
    return new HandshakeError('Greeting', `whoever listens there does not speak QMP: ${error.message}`, {
      cause: error,
    })
  return error
}
