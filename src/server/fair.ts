import type { Clock } from '../lib/clock.ts'
import { once } from '../lib/once.ts'
import { ApiError } from '../store/errors.ts'

/** How many requests are done at once, how many wait, and what is held open, in all and of one user. */
export interface FairLimits {
  /** Requests being done. */
  readonly seats: number
  /** Of one user: the rest is always free for others. */
  readonly seatsOfOne: number
  readonly waiting: number
  readonly waitingOfOne: number
  /** Longest wait for a seat. */
  readonly waitMs: number
  /** Requests a second of one user, on average, and how many may come at once. */
  readonly ratePerSecond: number
  readonly burst: number
  readonly watches: number
  readonly watchesOfOne: number
  /** Consoles and displays. */
  readonly consoles: number
  readonly consolesOfOne: number
}

export const defaultFairLimits: FairLimits = {
  seats: 64,
  seatsOfOne: 48,
  waiting: 4_096,
  waitingOfOne: 512,
  waitMs: 15_000,
  ratePerSecond: 2_000,
  burst: 4_000,
  watches: 4_000,
  watchesOfOne: 1_000,
  consoles: 256,
  consolesOfOne: 64,
}

/** Users whose rate is remembered; a quiet one is forgotten first, which only forgives it. */
const mostUsers = 4_096

/** What is held open for long, and takes no seat meanwhile. */
type Held = 'watches' | 'consoles'

const namesOf: Readonly<Record<Held, readonly [some: string, flag: string]>> = {
  watches: ['watches', '--watches-per-user'],
  consoles: ['consoles and displays', '--consoles-per-user'],
}
/** Whoever is refused one of these waits for people, not for requests. */
const heldRetrySeconds = 5

interface Waiting {
  readonly sit: () => void
}

interface Flow {
  seated: number
  readonly held: Record<Held, number>
  readonly queue: Set<Waiting>
}

interface Rate {
  left: number
  at: number
}

/** Gives back what was taken, once. */
export type Leave = () => void

/**
 * Fair queues, one a user, as Kubernetes' API priority and fairness has them: a user who asks for more than there is
 * room for waits in a queue of their own, and free seats go round the users in turn. So one with a thousand requests
 * delays another's by one request, not by a thousand.
 */
export class FairQueue {
  readonly #limits: FairLimits
  readonly #clock: Clock
  /** Users with anything under way; the order in which it is their turn. */
  readonly #flows = new Map<string, Flow>()
  readonly #rates = new Map<string, Rate>()
  readonly #held: Record<Held, number> = { watches: 0, consoles: 0 }
  #seated = 0
  #waiting = 0

  constructor(limits: FairLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
  }

  /** Requests being done, and requests that wait. */
  get load(): { readonly seated: number; readonly waiting: number } {
    return { seated: this.#seated, waiting: this.#waiting }
  }

  /** Counts a request against the rate of its user. @throws ApiError TooManyRequests */
  spend(user: string): void {
    const { ratePerSecond, burst } = this.#limits
    const now = this.#clock.elapsed()
    const rate = this.#rates.get(user) ?? { left: burst, at: now }
    rate.left = Math.min(burst, rate.left + ((now - rate.at) * ratePerSecond) / 1000)
    rate.at = now
    this.#rates.delete(user)
    if (this.#rates.size >= mostUsers) this.#rates.delete(this.#rates.keys().next().value ?? '')
    this.#rates.set(user, rate)
    if (rate.left < 1) throw tooMany(`${user} sends more than ${ratePerSecond} requests a second`)
    rate.left -= 1
  }

  /**
   * Waits for a seat. @returns what gives it back
   * @param gone asked for where there is a wait: a client that is gone gives up its place
   * @throws ApiError TooManyRequests where too many wait already, or the wait is over; the reason of `gone`
   */
  enter(user: string, gone?: () => AbortSignal): Promise<Leave> {
    const { seats, seatsOfOne, waiting, waitingOfOne } = this.#limits
    const flow = this.#flowOf(user)
    if (this.#seated < seats && flow.seated < seatsOfOne && flow.queue.size === 0)
      return Promise.resolve(this.#take(user, flow))
    if (flow.queue.size >= waitingOfOne || this.#waiting >= waiting) {
      this.#tidy(user, flow)
      const whose = flow.queue.size >= waitingOfOne ? `requests of ${user}` : 'requests'
      return Promise.reject(tooMany(`too many ${whose} wait`))
    }
    return this.#wait(user, flow, gone?.())
  }

  /**
   * Counts a watch, which holds no seat. @returns what counts its end
   * @param stop is called where it is one too many
   * @throws ApiError TooManyRequests
   */
  watch(user: string, stop: () => void): Leave {
    try {
      return this.#hold('watches', user)
    } catch (error) {
      stop()
      throw error
    }
  }

  /** Counts a console or a display, which holds no seat. @returns what counts its end @throws ApiError TooManyRequests */
  console(user: string): Leave {
    return this.#hold('consoles', user)
  }

  #hold(what: Held, user: string): Leave {
    const flow = this.#flowOf(user)
    const ofOne = this.#limits[`${what}OfOne`]
    const [some, flag] = namesOf[what]
    const one = flow.held[what] >= ofOne
    if (one || this.#held[what] >= this.#limits[what]) {
      this.#tidy(user, flow)
      throw one
        ? full(
            `${user} has ${ofOne} ${some}, which is as many as one may have`,
            `end some of them, or have ${flag} raised`,
          )
        : full(`all ${this.#held[what]} ${some} of this server are taken`, 'try again once one has ended')
    }
    flow.held[what] += 1
    this.#held[what] += 1
    return once(() => {
      flow.held[what] -= 1
      this.#held[what] -= 1
      this.#tidy(user, flow)
    })
  }

  #flowOf(user: string): Flow {
    const flow = this.#flows.get(user) ?? {
      ...{ seated: 0, held: { watches: 0, consoles: 0 } },
      queue: new Set<Waiting>(),
    }
    this.#flows.set(user, flow)
    return flow
  }

  #tidy(user: string, flow: Flow): void {
    const { watches, consoles } = flow.held
    if (flow.seated + watches + consoles + flow.queue.size === 0) this.#flows.delete(user)
  }

  #take(user: string, flow: Flow): Leave {
    flow.seated += 1
    this.#seated += 1
    return once(() => {
      flow.seated -= 1
      this.#seated -= 1
      this.#tidy(user, flow)
      this.#next()
    })
  }

  #wait(user: string, flow: Flow, gone?: AbortSignal): Promise<Leave> {
    return new Promise((resolve, reject) => {
      const end = () => {
        cancel()
        gone?.removeEventListener('abort', onGone)
        flow.queue.delete(one)
        this.#waiting -= 1
      }
      const fail = (error: unknown) => {
        end()
        this.#tidy(user, flow)
        reject(error)
      }
      const onGone = () => fail(gone?.reason)
      const one: Waiting = {
        sit: () => {
          end()
          resolve(this.#take(user, flow))
        },
      }
      const { waitMs } = this.#limits
      const cancel = this.#clock.after(waitMs, () => fail(tooMany(`no turn came in ${waitMs / 1000} s`)))
      flow.queue.add(one)
      this.#waiting += 1
      if (gone?.aborted) onGone()
      else gone?.addEventListener('abort', onGone, { once: true })
    })
  }

  /** Gives a free seat to the user whose turn it is: whoever got one goes to the end. */
  #next(): void {
    const { seats, seatsOfOne } = this.#limits
    if (this.#seated >= seats || this.#waiting === 0) return
    for (const [user, flow] of this.#flows) {
      const [first] = flow.queue
      if (!first || flow.seated >= seatsOfOne) continue
      this.#flows.delete(user)
      this.#flows.set(user, flow)
      first.sit()
      return
    }
  }
}

function tooMany(why: string): ApiError {
  return new ApiError('TooManyRequests', `${why}: try again later`, { retryAfterSeconds: 1 })
}

function full(why: string, hint: string): ApiError {
  return new ApiError('TooManyRequests', why, { retryAfterSeconds: heldRetrySeconds }, { hint })
}
