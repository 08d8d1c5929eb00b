import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { hostClock } from './guard-clock.ts'
import type { FenceResult } from './guard-fence.ts'
import {
  type GuardRecord,
  ownIdentity,
  processLives,
  readGuardRecord,
  readTenure,
  writeAgentSign,
} from './guard-file.ts'
import { type GuardNews, guardNews } from './guard-word.ts'
import type { ProcessIdentity, Tenure } from './ports.ts'

const tickMs = 250
const signEveryMs = 1_000
/** How long after the guard should have begun to stop machines the agent does, ms. */
const graceMs = 300
/** How long a guard that was started may take for its first sign of life, ms. */
const startMs = 10_000
/** A guard that gave no sign of life for so long is replaced, ms. */
const stuckMs = 3_000
/** Within this time a guard that has ended has mostly been replaced; until then that it has is no news, ms. */
const replacedMs = 1_000
const firstRetryMs = 250
const longestRetryMs = 10_000
const fenceAgainMs = 1_000

/** What guard and agent of a host tell each other. */
export interface GuardFiles {
  /** Of this host. */
  readonly bootId: string
  /** What the last guard of this boot has told; undefined where there is nothing that can be relied on. */
  readonly read: () => GuardRecord | undefined
  /** Whether the guard of that record lives. */
  readonly lives: (record: GuardRecord) => boolean
  readonly tenure: () => Tenure
  /** Gives a sign of life. @throws where it can't */
  readonly sign: () => void
}

/** Those in a run directory. */
export function guardFiles(runDir: string, clock: Clock): GuardFiles {
  const self: ProcessIdentity = ownIdentity()
  return {
    bootId: self.bootId,
    read: () => readGuardRecord(runDir, self.bootId),
    lives: (record) => processLives(record),
    tenure: () => readTenure(runDir, { clock }),
    sign: () => writeAgentSign(runDir, self, clock),
  }
}

export interface GuardWatchOptions {
  readonly files: GuardFiles
  /** Of which program, told what, the guard has to be. */
  readonly program: string
  readonly deadlineMs: number
  /** Whether machines are to be stopped when it is not known whether the lease is held. */
  readonly selfFence: boolean
  /** Starts a guard, which takes the place of one that lives where `replace` is set. */
  readonly spawn: (replace: boolean) => Promise<{ readonly pid: number; readonly ended: Promise<string> }>
  readonly stop: () => Promise<FenceResult>
  readonly log: Log
  readonly clock?: Clock
}

/** The agent's side: keeps a guard running, reads what it tells, and does its work where it does not. */
export class GuardWatch {
  readonly #options: GuardWatchOptions
  readonly #clock: Clock
  #signedAt = Number.NEGATIVE_INFINITY
  #spawnAt = Number.NEGATIVE_INFINITY
  #retryMs = firstRetryMs
  #spawning = false
  /** Of the guards that were started, how many; the end of any but the last is none of the one that runs. */
  #spawned = 0
  /** Whether the guard that was found at the start was looked at. */
  #checked = false
  #knownAt: number
  /** Whether it was told that machines are stopped in place of the guard. */
  #acting = false
  #stopping = false
  #stoppedAt = Number.NEGATIVE_INFINITY
  #lastWords = ''
  /** What came of the work that is done in place of the guard. */
  #found: string | undefined
  readonly #listeners = new Set<() => void>()
  #told = ''
  #endedAt: number | undefined

  constructor(options: GuardWatchOptions) {
    this.#options = options
    this.#clock = options.clock ?? hostClock
    this.#knownAt = this.#clock.elapsed()
  }

  tenure(): Tenure {
    const tenure = this.#options.files.tenure()
    if (tenure.state !== 'lost' || this.#lastWords === '') return tenure
    return { ...tenure, why: `${tenure.why}; it ended with ${this.#lastWords}` }
  }

  /** What there is to say of the guard, and what the lease says of us. Cheap; never throws. */
  news(): GuardNews {
    return this.#newsOf(this.#options.files.read())
  }

  #newsOf(record: GuardRecord | undefined): GuardNews {
    const { files } = this.#options
    return guardNews(record, {
      ...{ bootId: files.bootId, now: this.#clock.elapsed(), lives: files.lives, stuckMs },
      ...{ lastWords: this.#lastWords, acting: this.#acting ? this.#found : undefined },
    })
  }

  /** Called when the lease is lost, held again or under another epoch, and when `news` has changed. @returns unsubscribe */
  onNews(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Until the signal is aborted; the guard lives on. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#tick()
      await sleep(this.#clock, tickMs, signal).catch(() => {})
    }
  }

  #tick(): void {
    const { files, program, log } = this.#options
    const now = this.#clock.elapsed()
    if (now - this.#signedAt >= signEveryMs) {
      this.#signedAt = now
      try {
        files.sign()
      } catch (error) {
        log.error('the guard could not be given a sign of life', { message: messageOf(error) })
      }
    }
    const record = files.read()
    if (record) this.#knownAt = now
    const lives = record !== undefined && files.lives(record)
    if (lives && now - record.aliveAt < stuckMs) {
      this.#retryMs = firstRetryMs
      if (!this.#checked && record.program !== program) this.#start(now, true)
      else this.#lastWords = ''
      this.#checked = true
    } else this.#start(now, lives)
    if (this.#isDue(record, now)) this.#stop(now)
    else this.#acting = false
    if (lives || !record) this.#endedAt = undefined
    else this.#endedAt ??= now
    if (this.#endedAt === undefined || now - this.#endedAt >= replacedMs) this.#tell(record)
  }

  #tell(record: GuardRecord | undefined): void {
    const tenure = this.tenure()
    const now = JSON.stringify([tenure.state, tenure.state === 'held' && tenure.epoch, this.#newsOf(record)])
    if (now === this.#told) return
    this.#told = now
    for (const listener of this.#listeners) listener()
  }

  /** Whether the guard should have begun to stop machines, and has not said that it did. */
  #isDue(record: GuardRecord | undefined, now: number): boolean {
    if (record) return record.stopAt !== undefined && now >= record.stopAt + graceMs
    return this.#options.selfFence && now >= this.#knownAt + this.#options.deadlineMs
  }

  #start(now: number, replace: boolean): void {
    if (this.#spawning || now < this.#spawnAt) return
    const { spawn, log } = this.#options
    this.#spawning = true
    this.#spawnAt = now + this.#retryMs
    this.#retryMs = Math.min(this.#retryMs * 2, longestRetryMs)
    void spawn(replace).then(
      ({ pid, ended }) => {
        log.info('a guard was started', { pid, replaces: replace })
        this.#spawnAt = this.#clock.elapsed() + startMs
        this.#spawning = false
        this.#spawned += 1
        const own = this.#spawned
        void ended.then((how) => {
          log.warn('the guard has ended', { pid, how })
          // Heard of late, when /proc told it before: its successor starts already.
          if (own !== this.#spawned) return
          this.#lastWords = how
          this.#spawnAt = this.#clock.elapsed() + this.#retryMs
        })
      },
      (error: unknown) => {
        this.#spawning = false
        this.#lastWords = messageOf(error)
        log.error('no guard could be started', { message: messageOf(error) })
      },
    )
  }

  #stop(now: number): void {
    if (this.#stopping || now - this.#stoppedAt < fenceAgainMs) return
    const { stop, log } = this.#options
    this.#stopping = true
    void stop().then(({ left, why, found = left }) => {
      this.#stopping = false
      // Where there is nothing to stop, such as long after a guard has ended, it is not missed.
      if (found > 0 && !this.#acting) {
        this.#acting = true
        log.warn('the guard does not act: failover-enabled machines are stopped by the agent', { found })
      }
      this.#found =
        left === 0 ? 'this server has stopped its machines' : `this server stops its machines: ${why}`
      // Until nothing is left it goes on without a pause.
      if (left === 0) this.#stoppedAt = this.#clock.elapsed()
      else log.warn('machines may still run', { left, why })
    })
  }
}
