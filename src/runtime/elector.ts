import { type Clock, sleep } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import type { Attempt, LeaseContender, LeaseTerms } from './lease.ts'

export interface ElectorOptions {
  readonly contender: Pick<LeaseContender, 'attempt' | 'release'>
  readonly terms: LeaseTerms
  readonly clock: Clock
  readonly log: Log
  /**
   * What may only be done by the holder. Its signal is aborted at the latest `terms.deadlineMs` after the last
   * renewal that succeeded was sent, whether the store answers or not; it must stop at once then.
   */
  readonly lead: (epoch: number, signal: AbortSignal) => Promise<void>
}

type Held = Extract<Attempt, { held: true }>

/** How long a try waits after one that got no answer. */
const retryMs = 500

/**
 * Contends for a lease until the signal is aborted; whenever it is held, `lead` runs. A term ends when the lease is
 * lost, when it can't be renewed in time, or when `lead` ends; then it is contended for anew. At the end it is released.
 */
export async function runElector(options: ElectorOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, terms } = options
  while (!signal.aborted) {
    const attempt = await attemptOnce(options, signal)
    if (attempt?.held) {
      log.info('elected', { epoch: attempt.epoch })
      const done = await term(options, attempt, signal)
      log.info('term ended', { epoch: attempt.epoch })
      if (done && !signal.aborted) {
        // What it does failed here: another may be luckier, and this one must not try without a pause.
        await release(options)
        await sleep(clock, terms.renewMs, signal).catch(() => {})
      }
    } else {
      const wait = attempt ? Math.max(attempt.retryInMs, 50) : retryMs
      await sleep(clock, Math.min(wait, terms.durationMs), signal).catch(() => {})
    }
  }
  await release(options)
}

async function release({ contender, terms, clock, log }: ElectorOptions): Promise<void> {
  await withDeadline(terms.renewMs, 'releasing the lease', () => contender.release(), { clock }).catch(
    (error: unknown) => log.warn('lease not released', { message: messageOf(error) }),
  )
}

/** One try; undefined where the store gave no answer in time. */
async function attemptOnce(
  { contender, terms, clock, log }: ElectorOptions,
  signal: AbortSignal,
): Promise<Attempt | undefined> {
  try {
    // Half, so that one answer that is lost leaves time for another try.
    return await withDeadline(terms.renewMs / 2, 'renewing the lease', () => contender.attempt(), {
      signal,
      clock,
    })
  } catch (error) {
    if (!signal.aborted) log.warn('lease not renewed', { message: messageOf(error) })
    return undefined
  }
}

/** @returns whether it ended because `lead` did */
async function term(options: ElectorOptions, first: Held, signal: AbortSignal): Promise<boolean> {
  const { clock, terms, log } = options
  const ended = new AbortController()
  const end = (why: string) => ended.abort(new Error(why))
  const onAbort = () => end('told to stop')
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  // Set before `lead` begins and moved by renewals only: nothing that hangs can hold it up.
  let cancel = () => {}
  const expectBy = (sentAt: number) => {
    cancel()
    cancel = clock.after(sentAt + terms.deadlineMs - clock.elapsed(), () =>
      end('the lease was not renewed in time'),
    )
  }
  expectBy(first.sentAt)
  let done = false
  const led = options
    .lead(first.epoch, ended.signal)
    .catch((error: unknown) => {
      if (!ended.signal.aborted) log.error('what the leader does failed', { err: error })
    })
    .finally(() => {
      done = !ended.signal.aborted
      end('what the leader does has ended')
    })
  let waitMs = terms.renewMs
  while (!ended.signal.aborted) {
    await sleep(clock, waitMs, ended.signal).catch(() => {})
    if (ended.signal.aborted) break
    const attempt = await attemptOnce(options, ended.signal)
    waitMs = attempt ? terms.renewMs : retryMs
    if (attempt?.held && attempt.epoch === first.epoch) expectBy(attempt.sentAt)
    else if (attempt) end('the lease is held by another')
  }
  cancel()
  signal.removeEventListener('abort', onAbort)
  await led
  return done
}
