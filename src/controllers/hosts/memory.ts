import type { FenceOutcome } from '../../host/fence-command.ts'
import { exponential } from '../../runtime/backoff.ts'
import type { Tries, Votes } from './types.ts'

const retryBaseMs = 1_000
const retryCapMs = 30_000

/** What a leader has tried for one lost host. All times are its own monotonic ms. */
export class LostHost {
  readonly marked = new Map<string, string>()
  readonly handled = new Map<string, string>()
  #failures = 0
  #retryAt = 0
  #why: Tries['why']
  #votes: { readonly at: number; readonly resourceVersion: string; readonly got: Votes } | undefined
  #command:
    | { readonly at: number; readonly resourceVersion: string; readonly outcome: FenceOutcome }
    | undefined

  /** A step that did not lead on: it is tried again, later each time, for ever. `why` is kept where none is given. */
  failed(now: number, why?: Tries['why']): void {
    this.#failures += 1
    this.#retryAt = now + exponential(this.#failures, retryBaseMs, retryCapMs)
    if (why) this.#why = why
  }

  voted(now: number, resourceVersion: string, got: Votes): void {
    this.#votes = { at: now, resourceVersion, got }
  }

  ran(now: number, resourceVersion: string, outcome: FenceOutcome): void {
    this.#command = { at: now, resourceVersion, outcome }
  }

  /** What was said of this reason is over. */
  settled(reason: string): void {
    if (this.#why?.reason === reason) this.#why = undefined
  }

  tries(now: number): Tries {
    const votes = this.#votes
    const command = this.#command
    return {
      ...{ failures: this.#failures, retryInMs: Math.max(0, this.#retryAt - now) },
      ...{ marked: this.marked, handled: this.handled },
      ...(this.#why && { why: this.#why }),
      ...(votes && {
        votes: { resourceVersion: votes.resourceVersion, ageMs: now - votes.at, ...votes.got },
      }),
      ...(command && {
        command: {
          ...{ resourceVersion: command.resourceVersion, ageMs: now - command.at },
          outcome: command.outcome,
        },
      }),
    }
  }
}

/** What is kept of lost hosts, until they are back. */
export class LostHosts {
  readonly #hosts = new Map<string, LostHost>()

  of(host: string): LostHost {
    const known = this.#hosts.get(host)
    if (known) return known
    const fresh = new LostHost()
    this.#hosts.set(host, fresh)
    return fresh
  }

  forget(host: string): void {
    this.#hosts.delete(host)
  }

  tries(now: number): ReadonlyMap<string, Tries> {
    return new Map([...this.#hosts].map(([host, one]) => [host, one.tries(now)]))
  }
}
