import type { Clock } from '../lib/clock.ts'
import { excerpt, type Message } from './codec.ts'
import { Busy, CommandError, Interrupted, ProtocolError, QmpTimeout } from './errors.ts'

export interface PendingOptions {
  readonly clock: Clock
  /** Commands without an answer at a time, those included for which nobody waits any more. */
  readonly limit: number
  /**
   * Beginning of every id, never used before on the same QEMU: an answer to a command of an earlier connection can
   * reach this one (QEMU 7.2 to 11.1, when the command was still running), and must not pass for ours.
   */
  readonly tag: string
}

export interface WaitOptions {
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

interface Waiting {
  readonly command: string
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  /** Stops timer and abort listener. */
  readonly release: () => void
}

/** The commands that were sent and have no answer yet, by id. */
export class Pending {
  readonly #options: PendingOptions
  readonly #waiting = new Map<string, Waiting>()
  /** Timed out or aborted: QEMU will still do and answer them. */
  readonly #abandoned = new Set<string>()
  #next = 1

  constructor(options: PendingOptions) {
    this.#options = options
  }

  /** Commands without an answer. */
  get size(): number {
    return this.#waiting.size + this.#abandoned.size
  }

  /**
   * Makes room for a command; `send` gets its id and must not call back.
   * @returns what QEMU returns. @throws Busy, QmpTimeout, CommandError, what `send` throws, or the signal's reason
   */
  add(command: string, { timeoutMs, signal }: WaitOptions, send: (id: string) => void): Promise<unknown> {
    const { clock, limit, tag } = this.#options
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      if (this.size >= limit)
        throw new Busy('Busy', `${command}: ${limit} commands wait for an answer already`)
      const id = `${tag}-${this.#next++}`
      send(id)
      const abandon = (error: unknown) => {
        this.#take(id)
        this.#abandoned.add(id)
        reject(error)
      }
      const cancel = clock.after(timeoutMs, () =>
        abandon(new QmpTimeout('QmpTimeout', `${command} got no answer within ${timeoutMs} ms`)),
      )
      const onAbort = () => abandon(signal?.reason)
      signal?.addEventListener('abort', onAbort, { once: true })
      const release = () => {
        cancel()
        signal?.removeEventListener('abort', onAbort)
      }
      this.#waiting.set(id, { command, resolve, reject, release })
    })
  }

  /** Hands an answer to whoever waits for it. One that is late, or was never asked for here, is dropped. */
  answer(message: Message): void {
    const id = message['id']
    if (typeof id !== 'string' || this.#abandoned.delete(id)) return
    const waiting = this.#take(id)
    if (!waiting) return
    const { command, resolve, reject } = waiting
    if (!('error' in message)) return resolve(message['return'])
    const error = message['error'] as { readonly class?: unknown; readonly desc?: unknown } | null
    if (typeof error?.class === 'string' && typeof error.desc === 'string')
      return reject(new CommandError(command, error.class, error.desc))
    reject(new ProtocolError('BadAnswer', `${command} failed with ${excerpt(error)}`))
  }

  /** Nothing will be answered any more. */
  fail(why: string, cause?: Error): void {
    for (const id of [...this.#waiting.keys()]) {
      const waiting = this.#take(id)
      waiting?.reject(new Interrupted('Interrupted', `${waiting.command}: ${why}`, { cause }))
    }
    this.#abandoned.clear()
  }

  #take(id: string): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    waiting?.release()
    return waiting
  }
}
