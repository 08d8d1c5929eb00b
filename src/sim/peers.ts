import type { SimProcess } from './clock.ts'
import type { Net } from './net.ts'

/** What one guard answers others: given the question, the answer, or nothing. */
type Handler = (question: unknown, answer: (reply: unknown) => void) => void

/** Questions from one host's process to another's guard. */
export class SimPeers {
  readonly #net: Net
  readonly #guards = new Map<string, { readonly process: SimProcess; readonly handle: Handler }>()

  constructor(net: Net) {
    this.#net = net
  }

  /** From now on this process answers for its host. */
  serve(host: string, process: SimProcess, handle: Handler): void {
    this.#guards.set(host, { process, handle })
  }

  /** Asks the guard of a host. @returns its answer; undefined where none came within `withinMs` */
  ask(from: string, process: SimProcess, to: string, question: unknown, withinMs: number): Promise<unknown> {
    return new Promise((resolve) => {
      const cancel = process.clock.after(withinMs, () => resolve(undefined))
      this.#net.send(from, to, () => {
        const guard = this.#guards.get(to)
        guard?.process.deliver(() =>
          guard.handle(question, (reply) =>
            this.#net.send(to, from, () =>
              process.deliver(() => {
                cancel()
                resolve(reply)
              }),
            ),
          ),
        )
      })
    })
  }
}
