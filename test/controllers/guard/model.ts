import {
  answerConsent,
  answerLost,
  type Said,
  storeWord,
  type Vote,
  votePassed,
} from '../../../src/controllers/guard/answer.ts'
import { planGuard } from '../../../src/controllers/guard/plan.ts'
import { type Rules, rules, stopMs } from '../../../src/controllers/guard/rules.ts'
import {
  firstState,
  type GuardState,
  heard,
  heldUntil,
  lateMs,
  promising,
  type StoreWord,
} from '../../../src/controllers/guard/state.ts'
import { defaultTerms } from '../../../src/runtime/lease.ts'

/** Mistakes that a model can be given, each of which its check must find. */
export interface Bugs {
  readonly rules?: Partial<Rules>
  /** An answer counts from when it arrived. */
  readonly countFromArrival?: boolean
  /** A newer list of members is used before a renewal that carried it succeeded. */
  readonly useMembersEarly?: boolean
  /** A new guard does not mind what the one before may have said. */
  readonly forgetOnRestart?: boolean
  /** Half of the members is enough for a vote. */
  readonly halfIsEnough?: boolean
  /** Machines die long after they should. */
  readonly slowStopMs?: number
  /** A try that has just begun makes good for the one that failed before. */
  readonly tryHides?: boolean
  /** Whoever has the store again takes back that it had lost it. */
  readonly haveEnds?: boolean
}

const { renewMs, deadlineMs, durationMs } = defaultTerms
const stepMs = 50
const tryMs = 1_500
const questionMs = 1_500
/** How long after the guard should have, the agent begins. */
const agentGraceMs = 300
const neededMs = Math.max(durationMs, deadlineMs + stopMs) * 1.02

interface StoredLease {
  version: number
  holder: string
  epoch: number
  members: readonly string[]
}

interface Host {
  readonly name: string
  state: GuardState
  said: Said
  /** Members as this host knows them; comes to be so in the lease. */
  members: readonly string[]
  storeUp: boolean
  /** Whether the store hears what it writes; it may be read all the same. */
  writesUp: boolean
  /** Whether it can ask and answer others; what is under way arrives all the same. */
  peersUp: boolean
  /** What it is told comes late. */
  slow: boolean
  pausedUntil: number
  alive: boolean
  dieAt: number | undefined
  stopAt: number | undefined
  tries: number
}

interface Voting {
  readonly host: string
  readonly version: number
  readonly members: readonly string[]
  readonly askedAt: number
  readonly votes: Vote[]
}

/** How often what the model is there for happened: a check of nothing proves nothing. */
export interface Seen {
  takeovers: number
  holds: number
  returns: number
  votes: number
  stops: number
}

/** Hosts with their guards, a store, and a leader, under one clock that goes by steps; all chance comes from `random`. */
export class Model {
  readonly seen: Seen = { takeovers: 0, holds: 0, returns: 0, votes: 0, stops: 0 }
  readonly hosts: Host[]
  /** Messages may take a while; none is lost. */
  calm = false
  readonly #leases = new Map<string, StoredLease>()
  readonly #random: () => number
  readonly #bugs: Bugs
  readonly #rules: Rules
  #messages: { at: number; to?: Host; fn: () => void }[] = []
  #now = 0
  #version = 1
  readonly #watched = new Map<string, { version: number; at: number }>()
  #voting: Voting | undefined

  constructor(count: number, random: () => number, bugs: Bugs = {}) {
    this.#random = random
    this.#bugs = bugs
    this.#rules = { ...rules, ...bugs.rules }
    const names = Array.from({ length: count }, (_, i) => `h${i}`)
    this.hosts = names.map((name) => this.#host(name, names))
    for (const { name } of this.hosts)
      this.#leases.set(name, { version: this.#version++, holder: name, epoch: 1, members: names })
  }

  get now(): number {
    return this.#now
  }

  /** @throws Error where a lease was taken while a machine of its host ran */
  run(ms: number, each: () => void): void {
    for (const end = this.#now + ms; this.#now < end; this.#now += stepMs) {
      each()
      this.#deliver()
      for (const host of this.hosts) this.#step(host)
      this.#lead()
    }
  }

  chance(part: number): boolean {
    return this.#random() < part
  }

  between(least: number, most: number): number {
    return least + Math.floor(this.#random() * (most - least + 1))
  }

  pick<T>(some: readonly T[]): T {
    return some[this.between(0, some.length - 1)] as T
  }

  /** The guard is killed; the next one takes up what was told the agent. */
  restart(host: Host): void {
    const { name, state } = host
    const quiet = this.#bugs.forgetOnRestart ? Number.NEGATIVE_INFINITY : this.#now
    host.said = { lostAt: quiet, consentedAt: quiet }
    host.state = {
      ...firstState(name, this.#now),
      ...{ renewedAt: state.renewedAt, promises: state.promises, stopping: state.stopping, gone: false },
      ...{ failing: state.failing, heldBefore: state.stopping ? undefined : host.stopAt },
    }
    host.tries += 1
  }

  #host(name: string, members: readonly string[]): Host {
    const promises = [{ members: [...members], deadlineMs, suspended: false }]
    const state = { ...firstState(name, 0), renewedAt: 0, promises }
    const said = { lostAt: 0, consentedAt: 0 }
    const net = { storeUp: true, writesUp: true, peersUp: true, slow: false }
    return {
      ...{ name, state, said, members, ...net, pausedUntil: 0, alive: true, dieAt: undefined },
      ...{ stopAt: deadlineMs, tries: 0 },
    }
  }

  /** To a guard, a message is delivered once it is not paused. */
  #send(fn: () => void, to?: Host): void {
    if (!this.calm && this.chance(0.03)) return
    const late = !this.calm && this.chance(to?.slow ? 0.9 : 0.05)
    const delay = late ? this.between(500, 6_000) : this.between(0, this.calm ? 250 : 60)
    this.#messages.push({ at: this.#now + delay, fn, ...(to && { to }) })
  }

  #toStore(host: Host, fn: () => void): void {
    if (host.storeUp) this.#send(() => host.storeUp && fn())
  }

  #fromStore(host: Host, fn: () => void): void {
    if (host.storeUp) this.#send(() => host.storeUp && fn(), host)
  }

  #deliver(): void {
    const due = this.#messages.filter(({ at, to }) => at <= this.#now && !(to && to.pausedUntil > this.#now))
    this.#messages = this.#messages.filter((message) => !due.includes(message))
    for (const { fn } of due.sort((a, b) => a.at - b.at)) fn()
  }

  #step(host: Host): void {
    this.#dying(host)
    if (host.pausedUntil > this.#now) return
    this.#endTry(host)
    const options = { selfFence: true, renewMs, rules: this.#rules }
    const plan = planGuard(host.state, this.#now, options)
    host.stopAt = plan.stopAt
    if (plan.standing === 'holding') this.seen.holds += 1
    if (plan.stop) {
      host.state = { ...host.state, stopping: true, gone: !host.alive }
      this.#kill(host)
    }
    if (plan.standing === 'held' && !host.alive && this.chance(0.02)) host.alive = true
    if (plan.ask) this.#ask(host)
    if (plan.renew) this.#try(host)
  }

  /** What the agent does by the guard's file, and what becomes of signals. */
  #dying(host: Host): void {
    if (host.stopAt !== undefined && this.#now >= host.stopAt + agentGraceMs) this.#kill(host)
    if (host.dieAt === undefined || this.#now < host.dieAt) return
    host.alive = false
    host.dieAt = undefined
  }

  #kill(host: Host): void {
    if (!host.alive || host.dieAt !== undefined) return
    this.seen.stops += 1
    host.dieAt = this.#now + this.between(50, this.#bugs.slowStopMs ?? stopMs - 2 * agentGraceMs)
  }

  #endTry(host: Host): void {
    const { tryingSince } = host.state
    if (tryingSince === undefined || this.#now - tryingSince < tryMs) return
    host.tries += 1
    host.state = {
      ...host.state,
      tryingSince: undefined,
      storeSeenAt: undefined,
      failing: true,
      retryAt: this.#now + 500,
    }
  }

  /** Reads the lease, then writes it by compare-and-swap; only what comes before the try has ended counts. */
  #try(host: Host): void {
    const mine = ++host.tries
    const failing = !this.#bugs.tryHides && (host.state.failing || host.state.tryingSince !== undefined)
    host.state = { ...host.state, tryingSince: this.#now, failing }
    const current = () => host.tries === mine
    const end = (more: Partial<GuardState>) => {
      host.state = { ...host.state, tryingSince: undefined, storeSeenAt: undefined, failing: false, ...more }
    }
    this.#toStore(host, () => {
      const { version, holder } = this.#leases.get(host.name)!
      this.#fromStore(host, () => {
        if (!current()) return
        if (holder !== host.name && (host.alive || !host.state.gone))
          return end({ taken: holder, retryAt: this.#now + 500 })
        this.#write(host, { version, current, end })
      })
    })
  }

  #write(
    host: Host,
    {
      version,
      current,
      end,
    }: { version: number; current: () => boolean; end: (more: Partial<GuardState>) => void },
  ): void {
    const promise = { members: [...host.members], deadlineMs, suspended: false }
    if (this.#bugs.useMembersEarly) host.state = { ...host.state, promises: [] }
    host.state = promising(host.state, promise)
    const sentAt = this.#now
    if (!host.writesUp) return
    this.#toStore(host, () => {
      const lease = this.#leases.get(host.name)!
      const won = lease.version === version
      if (won) {
        if (lease.holder !== host.name) this.seen.returns += 1
        Object.assign(lease, { version: this.#version++, holder: host.name, members: promise.members })
      }
      this.#fromStore(host, () => {
        if (!current()) return
        if (!won) return end({ retryAt: this.#now })
        end({
          renewedAt: sentAt,
          promises: [promise],
          taken: undefined,
          stopping: false,
          gone: false,
          retryAt: 0,
        })
      })
    })
  }

  #ask(host: Host): void {
    const askedAt = this.#now
    host.state = { ...host.state, askedAt }
    const names = new Set(host.state.promises.flatMap(({ members }) => members))
    for (const peer of this.hosts) {
      if (peer === host || !names.has(peer.name) || !host.peersUp || !peer.peersUp) continue
      this.#send(
        () =>
          this.#asked(peer, this.#now, (word) => {
            this.#send(() => {
              if (this.#now - askedAt >= questionMs && !this.#bugs.countFromArrival) return
              const at = this.#bugs.countFromArrival ? this.#now : askedAt
              if (this.#bugs.haveEnds && word === 'have') host.state = { ...host.state, lost: new Map() }
              host.state = heard(host.state, peer.name, { word, askedAt: at })
            }, host)
          }),
        peer,
      )
    }
  }

  #asked(peer: Host, since: number, reply: (word: StoreWord) => void): void {
    const word = storeWord(peer.state, this.#now)
    if (word === 'try' && this.#now - since < lateMs) {
      if (peer.state.tryingSince === undefined) this.#try(peer)
      this.#messages.push({ at: this.#now + stepMs, to: peer, fn: () => this.#asked(peer, since, reply) })
      return
    }
    const answer = answerLost(word, peer.said, this.#now, this.#rules)
    peer.said = answer.said
    reply(answer.word)
  }

  /** The leader sees every lease in time, asks once it was silent for long enough, and takes it once a vote has passed. */
  #lead(): void {
    for (const { name } of this.hosts) {
      const { version } = this.#leases.get(name)!
      if (this.#watched.get(name)?.version !== version) this.#watched.set(name, { version, at: this.#now })
    }
    if (this.#voting && this.#now - this.#voting.askedAt < 400) return this.#count()
    this.#voting = undefined
    const silent = this.hosts.filter(({ name }) => {
      const lease = this.#leases.get(name)!
      return lease.holder === name && this.#now - this.#watched.get(name)!.at >= neededMs
    })
    if (silent.length === 0) return
    const { name } = this.pick(silent)
    const { version, members } = this.#leases.get(name)!
    this.#voting = { host: name, version, members, askedAt: this.#now, votes: [] }
    this.#askVotes(this.#voting)
  }

  #askVotes({ host, askedAt, votes, members }: Voting): void {
    for (const peer of this.hosts) {
      if (peer.name === host || !members.includes(peer.name)) continue
      this.#send(() => {
        const answer = answerConsent(peer.state, { host, said: peer.said, now: this.#now }, this.#rules)
        peer.said = answer.said
        this.#send(() => votes.push({ host: peer.name, consent: answer.consent, askedAt }))
      }, peer)
    }
  }

  #count(): void {
    const { host, version, members, votes } = this.#voting!
    const agreed = votes.filter(({ consent }) => consent).length
    const passed = this.#bugs.halfIsEnough
      ? agreed * 2 >= members.length
      : votePassed({ host, members }, votes, this.#now, this.#rules)
    if (!passed) return
    this.seen.votes += 1
    this.#voting = undefined
    this.#send(() => {
      const lease = this.#leases.get(host)!
      if (lease.version !== version) return
      this.seen.takeovers += 1
      this.#check(this.hosts.find(({ name }) => name === host)!)
      Object.assign(lease, { version: this.#version++, holder: 'fenced', epoch: lease.epoch + 1 })
    })
  }

  #check({ name, alive, state, stopAt }: Host): void {
    if (!alive) return
    const until = heldUntil(state)
    throw new Error(
      `${name} was taken at ${this.#now} while its machine ran: held until ${until}, to stop at ${stopAt}`,
    )
  }
}
