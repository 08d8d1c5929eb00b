import type { FenceOutcome } from '../../host/fence-command.ts'
import { exponential } from '../../runtime/backoff.ts'
import type { Tries, Votes } from './types.ts'

const retryBaseMs = 1_000
const retryCapMs = 30_000
/**
 * A mark that its host has written over is made again, at most this often, ms: one that did not know yet that it has lost
 * its lease lets it stand from then on, one of an older version does not.
 */
const remarkMs = 10_000

/** What a leader has tried for one lost host. All times are its own monotonic ms. */
export class LostHost {
  readonly #marked = new Map<string, { readonly key: string; readonly at: number }>()
  readonly handled = new Map<string, string>()
  /** Answers in a row that did not lead on, and steps in a row that broke: one must not clear the other's count. */
  #refused = 0
  #broken = 0
  #retryAt = 0
  #why: Tries['why']
  #votes: { readonly at: number; readonly resourceVersion: string; readonly got: Votes } | undefined
  #command:
    | { readonly at: number; readonly resourceVersion: string; readonly outcome: FenceOutcome }
    | undefined

  /** A machine is being marked. */
  mark(now: number, uid: string, key: string): void {
    this.#marked.set(uid, { key, at: now })
  }

  /** It is answered, and does not lead on: it is tried again, later each time, for ever. */
  refused(now: number, why: NonNullable<Tries['why']>): void {
    this.#refused += 1
    this.#why = why
    this.#retryAt = now + exponential(this.#refused, retryBaseMs, retryCapMs)
  }

  /** A step broke: so is that. */
  broke(now: number): void {
    this.#broken += 1
    this.#retryAt = now + exponential(this.#broken, retryBaseMs, retryCapMs)
  }

  /** A step was done, whatever was answered. */
  done(): void {
    this.#broken = 0
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
      ...{ failures: this.#refused + this.#broken, retryInMs: Math.max(0, this.#retryAt - now) },
      marked: new Map([...this.#marked].map(([uid, { key }]) => [uid, key])),
      overdue: new Set([...this.#marked].flatMap(([uid, { at }]) => (now - at < remarkMs ? [] : [uid]))),
      handled: this.handled,
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
