import { sleep } from '../../lib/clock.ts'
import { withDeadline } from '../../lib/deadline.ts'
import { messageOf } from '../../lib/errors.ts'
import { fencedHolder, leaseAnnotations } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'
import type { Attempt as LeaseAttempt, LeaseContender, LeaseFacts } from '../../runtime/lease.ts'
import { isReason } from '../../store/errors.ts'
import { answerConsent, answerLost, type Said, storeWord } from './answer.ts'
import { silenceLeft } from './earlier-boot.ts'
import { type GuardPlan, planGuard, type Standing } from './plan.ts'
import type { ClusterView, GuardDeps, LeaseWords } from './ports.ts'
import type { GuardState, StoreWord } from './state.ts'
import { firstState, heard, heldUntil, isHeld, lateMs, promising, replaced } from './state.ts'
import { noWoes, otherBoot, type Reasons, standingWords, waitsFor, whyOf } from './words.ts'

const tickMs = 250
const petEveryMs = 1_000
/** Between tries that get no answer, ms. */
const retryMs = 500
/** Once machines are gone, how often it is looked for others, ms. */
const lookAgainMs = 1_000
const releaseMs = 2_000
const remindEveryMs = 60_000

/** The guard of a host: renews its lease, answers other hosts, and stops machines when it must. */
export class Guard {
  readonly #deps: GuardDeps
  readonly #contender: Pick<LeaseContender, 'attempt' | 'release'>
  readonly #sent = new WeakMap<LeaseFacts, LeaseWords>()
  #state: GuardState
  #said: Said
  #view: ClusterView
  #epoch: number
  #told: { readonly members: ClusterView['members']; readonly peers: Record<string, string> } | undefined
  #standing: Standing | undefined
  #lookedAt = Number.NEGATIVE_INFINITY
  #looking = false
  #fencing = false
  #fencedAt = Number.NEGATIVE_INFINITY
  #pettedAt = Number.NEGATIVE_INFINITY
  #tries = 0
  #leaving: 'no' | 'wanted' | 'releasing' | 'done' = 'no'
  #remindedAt = Number.NEGATIVE_INFINITY
  #leaveTriedAt = Number.NEGATIVE_INFINITY
  #complained = ''
  #woes: Pick<Reasons, 'trouble' | 'left'> = noWoes
  /** What the lease says of the agent. */
  #agent: LeaseWords['agent'] | undefined
  #wake: () => void = () => {}

  constructor(deps: GuardDeps) {
    const { host, clock, inherited } = deps
    const now = clock.elapsed()
    this.#deps = deps
    this.#epoch = inherited?.epoch ?? 0
    this.#agent = inherited?.agent
    const peers = Object.entries(inherited?.peers ?? {})
    const members = new Map([...peers, [host, deps.facts.peer] as const])
    this.#view = { members, unclaimed: 'the store was not read yet' }
    // What the guard before this one has said is not known: it may have been anything, just now.
    this.#said = { lostAt: now, consentedAt: now }
    this.#state = firstState(host, now, inherited)
    this.#contender = deps.contender({
      facts: () => this.#facts(),
      own: {
        mayReturn: (lease, silentMs) => this.#mayReturn(lease, silentMs),
        ...(this.#epoch > 0 && { leastEpoch: this.#epoch }),
      },
    })
  }

  /** Runs until it is told to stop and no machine needs it. */
  async run(signal: AbortSignal): Promise<void> {
    const onAbort = () => {
      if (this.#leaving === 'no') this.#leaving = 'wanted'
      this.#wake()
    }
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    while (this.#leaving !== 'done') {
      const { promise: nap, resolve: wake } = Promise.withResolvers<void>()
      const cancel = this.#deps.clock.after(tickMs, wake)
      this.#wake = wake
      this.#tick()
      await nap
      cancel()
    }
    signal.removeEventListener('abort', onAbort)
  }

  /** A store that was restored is taken as it is from now on. */
  storeReplaced(): void {
    this.#state = replaced(this.#state, this.#deps.clock.elapsed(), this.#deps.terms)
  }

  /** What another host is told that asks whether this one has lost the store. */
  async saysLost(): Promise<{ readonly word: StoreWord; readonly why: string }> {
    const { clock } = this.#deps
    const since = clock.elapsed()
    let word = storeWord(this.#state, since)
    while (word === 'try' && clock.elapsed() - since < lateMs) {
      if (this.#state.tryingSince === undefined) this.#renew()
      await sleep(clock, 50)
      word = storeWord(this.#state, clock.elapsed())
    }
    const answer = answerLost(word, this.#said, clock.elapsed())
    this.#said = answer.said
    return { word: answer.word, why: whyOf(this.#reasons()) }
  }

  /** What a leader is told that asks whether it may take the lease of `host`. */
  consents(host: string): { readonly consent: boolean; readonly why: string } {
    const { clock, log } = this.#deps
    const { said, ...answer } = answerConsent(this.#state, { host, said: this.#said, now: clock.elapsed() })
    this.#said = said
    log.info('asked whether a lease may be taken', { host, ...answer })
    return answer
  }

  #plan(now: number): GuardPlan {
    const { facts, terms, agentLives } = this.#deps
    // The leader takes the host for one without an agent until the lease says otherwise.
    const news = this.#agent === 'silent' && agentLives()
    return planGuard(this.#state, now, {
      ...{ selfFence: facts.selfFence !== 'none', renewMs: terms.renewMs, news },
    })
  }

  #tick(): void {
    const { clock, pet, terms } = this.#deps
    const now = clock.elapsed()
    const plan = this.#plan(now)
    if (plan.standing !== this.#standing) this.#changed(plan.standing)
    if (plan.stop) this.#fence(now)
    this.#publish(plan, now)
    if (plan.pet && pet && now - this.#pettedAt >= petEveryMs) {
      this.#pettedAt = now
      this.#guarded('the watchdog could not be petted', pet)
    }
    if (plan.ask) this.#ask(now)
    if (plan.renew) this.#renew()
    if (now - this.#lookedAt >= terms.renewMs) this.#look(now)
    if (this.#leaving === 'no' && this.#deps.homeless?.()) this.#leaving = 'wanted'
    if (this.#leaving === 'wanted') void this.#leave(now)
  }

  #changed(standing: Standing): void {
    const { log } = this.#deps
    const fields = { standing, epoch: this.#epoch, ...(this.#state.taken && { taken: this.#state.taken }) }
    if (standing === 'held' || standing === 'starting') log.info(standingWords[standing], fields)
    else log.warn(standingWords[standing], fields)
    this.#standing = standing
  }

  #reasons(): Reasons {
    const { taken, renewedAt } = this.#state
    const ending = this.#leaving === 'releasing' || this.#leaving === 'done'
    const standing = this.#standing ?? 'starting'
    const [unclaimed, renewed] = [this.#view.unclaimed, renewedAt !== undefined]
    return { standing, taken, unclaimed, renewed, ending, stopMs: this.#deps.facts.stopMs, ...this.#woes }
  }

  /** @throws where it could not be told, if `must` */
  #publish({ stopAt }: Pick<GuardPlan, 'stopAt'>, now: number, must = false): void {
    const { promises, renewedAt, stopping } = this.#state
    const reasons = this.#reasons()
    const waits = waitsFor(reasons)
    const until = heldUntil(this.#state)
    const tell = () =>
      this.#deps.publish({
        ...{ epoch: this.#epoch, held: isHeld(this.#state, now) && !reasons.ending, fencing: stopping },
        ...(renewedAt !== undefined && { sentAt: renewedAt }),
        deadlineMs: until === undefined || renewedAt === undefined ? 0 : until - renewedAt,
        ...(stopAt !== undefined && { stopAt }),
        ...{ promises: [...promises], peers: this.#peers(), why: whyOf(reasons) },
        standing: reasons.standing,
        ...(waits !== undefined && { waits }),
        ...(this.#agent !== undefined && { agent: this.#agent }),
      })
    if (must) tell()
    else this.#guarded('the agent could not be told', tell)
  }

  /** For the guard after this one: it may have to ask while the store is away. */
  #peers(): Readonly<Record<string, string>> {
    const { members } = this.#view
    if (this.#told?.members === members) return this.#told.peers
    const known = [...members].filter((one): one is [string, string] => one[1] !== undefined)
    const peers = Object.fromEntries(known.filter(([name]) => name !== this.#deps.host))
    this.#told = { members, peers }
    return peers
  }

  /** Complaints that stay the same are logged once. */
  #guarded(what: string, work: () => void): void {
    try {
      work()
      if (this.#complained.startsWith(what)) this.#complained = ''
    } catch (error) {
      const complaint = `${what}: ${messageOf(error)}`
      if (complaint !== this.#complained) this.#deps.log.error(what, { message: messageOf(error) })
      this.#complained = complaint
    }
  }

  #fence(now: number): void {
    this.#state = { ...this.#state, stopping: true }
    // A look that fails at once must not be repeated at once, for ever.
    if (this.#fencing || now - this.#fencedAt < (this.#state.gone ? lookAgainMs : tickMs)) return
    this.#fencing = true
    void this.#deps.machines.stop().then(({ left, why }) => {
      this.#fencing = false
      this.#fencedAt = this.#deps.clock.elapsed()
      if (left > 0) this.#deps.log.warn('machines may still run', { left, why })
      this.#woes = { ...this.#woes, left: left > 0 ? why : undefined }
      // While it was looked, the lease may have come back.
      if (this.#state.stopping) this.#state = { ...this.#state, gone: left === 0 }
      this.#wake()
    })
  }

  #ask(now: number): void {
    this.#state = { ...this.#state, askedAt: now }
    const names = new Set(this.#state.promises.flatMap(({ members }) => members))
    for (const name of names) {
      const address = this.#view.members.get(name)
      if (name === this.#deps.host || address === undefined) continue
      void this.#deps.ask(name, address).then((answer) => {
        if (!answer) return
        this.#state = heard(this.#state, name, answer)
        this.#wake()
      })
    }
  }

  /** Tries once. What a try that is under way brings counts for nothing then: what it writes, this one reads. */
  #renew(): void {
    const { clock, terms, log } = this.#deps
    const startedAt = clock.elapsed()
    if (this.#view.unclaimed !== undefined || this.#leaving === 'releasing') {
      this.#state = { ...this.#state, retryAt: startedAt + retryMs }
      return
    }
    const mine = ++this.#tries
    const failing = this.#state.failing || this.#state.tryingSince !== undefined
    this.#state = { ...this.#state, tryingSince: startedAt, failing }
    const tryMs = Math.max(1_000, (terms.renewMs * 2) / 3)
    const end = (failed: boolean, more: Partial<GuardState>) => {
      this.#state = {
        ...this.#state,
        tryingSince: undefined,
        storeSeenAt: undefined,
        failing: failed,
        ...more,
      }
      this.#wake()
    }
    void withDeadline(tryMs, 'renewing the lease', () => this.#contender.attempt(), { clock }).then(
      (result) => {
        if (mine === this.#tries) end(false, this.#outcome(result))
      },
      (error: unknown) => {
        if (mine !== this.#tries) return
        const message = messageOf(error)
        if (message !== this.#complained) log.warn('lease not renewed', { message })
        this.#complained = message
        this.#woes = { ...this.#woes, trouble: this.#woes.trouble ?? message }
        end(true, { retryAt: clock.elapsed() + retryMs })
      },
    )
  }

  #outcome(result: LeaseAttempt): Partial<GuardState> {
    const now = this.#deps.clock.elapsed()
    if (result.held) {
      this.#complained = ''
      this.#woes = noWoes
      this.#epoch = result.epoch
      const sent = result.facts && this.#sent.get(result.facts)
      this.#agent = sent?.agent
      return {
        ...{ renewedAt: result.sentAt, taken: undefined, stopping: false, gone: false, retryAt: 0 },
        ...(sent && { promises: [sent.promise] }),
      }
    }
    const { holder, retryInMs } = result
    // Somebody wrote it between our look and our write: that says nothing yet.
    if (holder === '') return { retryAt: now + 50 }
    const taken = holder === this.#deps.identity ? otherBoot : holder
    return { taken, retryAt: now + Math.max(retryInMs, 100) }
  }

  /** What the next write promises. It binds from before it is sent: it may be written without our ever hearing of it. */
  #facts(): LeaseFacts {
    const { facts, terms, agentLives, clock } = this.#deps
    const { maintenance } = this.#view
    const members = [...this.#view.members.keys()].sort()
    const promise = { members, deadlineMs: terms.deadlineMs, suspended: maintenance !== undefined }
    const agent = agentLives() ? 'alive' : 'silent'
    const annotations = leaseAnnotations({
      ...{ ...facts, deadlineMs: terms.deadlineMs, members, agent },
      ...(maintenance !== undefined && { maintenance }),
    })
    this.#sent.set(annotations, { promise, agent })
    this.#state = promising(this.#state, promise)
    // The guard after this one is bound by it too.
    const now = clock.elapsed()
    this.#publish(this.#plan(now), now, true)
    return annotations
  }

  /** Whether a lease that we do not hold may be taken up: not while machines run that its loss would have had stopped. */
  async #mayReturn(lease: Lease, silentMs: number): Promise<number> {
    const { identity, facts, terms, machines } = this.#deps
    const { holderIdentity: holder = '', leaseTransitions } = lease.spec
    // Given up, and nobody has had it since.
    if (holder === '' && leaseTransitions === this.#epoch) return 0
    if (holder === identity) {
      const left = silenceLeft(lease, silentMs, { bootId: facts.bootId, durationMs: terms.durationMs })
      if (left === undefined) return 0
      if (left > 0) return left
    }
    if (holder === fencedHolder) this.#state = { ...this.#state, taken: fencedHolder }
    const { left } = await machines.stop()
    return left === 0 ? 0 : tickMs
  }

  #look(now: number): void {
    const { clock, look, terms, log } = this.#deps
    if (this.#looking) return
    this.#looking = true
    this.#lookedAt = now
    void withDeadline(Math.max(1_000, terms.renewMs), 'reading the hosts', look, { clock }).then(
      (view) => {
        this.#looking = false
        if (view.unclaimed !== undefined && view.unclaimed !== this.#view.unclaimed)
          log.warn('the lease is not touched yet', { message: view.unclaimed })
        // Nothing was tried before it was read.
        if (view.unclaimed === undefined && this.#view.unclaimed !== undefined)
          this.#state = { ...this.#state, retryAt: 0 }
        this.#view = view
        this.#wake()
      },
      (error: unknown) => {
        this.#looking = false
        if (this.#view.unclaimed === undefined) return
        // Nothing is tried before it was read: this is what tells that it is away.
        this.#state = { ...this.#state, failing: true }
        this.#woes = { ...this.#woes, trouble: this.#woes.trouble ?? messageOf(error) }
      },
    )
  }

  /** Ends only where no failover-enabled machine needs the lease; until then all goes on. */
  async #leave(now: number): Promise<void> {
    const { machines, log, clock } = this.#deps
    if (now - this.#leaveTriedAt < lookAgainMs) return
    this.#leaveTriedAt = now
    let running = await machines.running()
    if (running === 0) {
      this.#leaving = 'releasing'
      this.#publish(this.#plan(now), now)
      // Again: the agent has now been told that it may start none, and what it had begun to start is there.
      running = await machines.running()
    }
    if (running > 0) {
      this.#leaving = 'wanted'
      if (now - this.#remindedAt < remindEveryMs) return
      this.#remindedAt = now
      log.warn('told to stop, but failover-enabled machines run: the lease is renewed until they are gone', {
        ...{ running, hint: 'stop them, or send the signal again to end all the same' },
      })
      return
    }
    await withDeadline(releaseMs, 'releasing the lease', (signal) => this.#release(signal), { clock }).catch(
      (error: unknown) => log.warn('lease not released', { message: messageOf(error) }),
    )
    this.#leaving = 'done'
    this.#wake()
  }

  /** After the renewal that is under way, which would otherwise be in its way. */
  async #release(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps
    while (this.#state.tryingSince !== undefined) await sleep(clock, 20, signal)
    for (;;) {
      try {
        return await this.#contender.release()
      } catch (error) {
        // Somebody noted something on it.
        if (!isReason(error, 'Conflict')) throw error
        await sleep(clock, 20, signal)
      }
    }
  }
}
