import type { ServerResponse } from 'node:http'
import type { Clock } from '../lib/clock.ts'

/** Tells by `close` that it is sent, or that its client is gone. */
type Answer = Pick<ServerResponse, 'once' | 'headersSent' | 'setHeader'>

/** The answers that a server has under way, for them to end in order before its connections are cut. */
export class UnderWay {
  /** Each with what ends it, where it would go on for hours. */
  readonly #answers = new Map<Answer, () => void>()
  #ends = false
  #none = () => {}

  /** Counts an answer until it is sent, or its client is gone. */
  begin(answer: Answer): void {
    this.#answers.set(answer, () => {})
    answer.once('close', () => {
      this.#answers.delete(answer)
      if (this.#answers.size === 0) this.#none()
    })
  }

  /** One of them goes on until `stop` is called, which is done at once where the server ends already. */
  goesOn(answer: Answer, stop: () => void): void {
    if (this.#answers.has(answer)) this.#answers.set(answer, stop)
    if (this.#ends) stop()
  }

  /** Stops what goes on. Resolves once every answer is sent, `ms` later at most. */
  async end(clock: Clock, ms: number): Promise<void> {
    this.#ends = true
    for (const [answer, stop] of [...this.#answers]) {
      // A next request on its connection would meet the cut.
      if (!answer.headersSent) answer.setHeader('connection', 'close')
      stop()
    }
    if (this.#answers.size === 0) return
    const sent = Promise.withResolvers<void>()
    this.#none = sent.resolve
    const cancel = clock.after(ms, sent.resolve)
    await sent.promise
    cancel()
  }
}
