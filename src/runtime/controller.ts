import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { type Log, withLogFields } from '../lib/log.ts'
import { type Meter, unmetered } from '../lib/measures.ts'
import { isReason } from '../store/errors.ts'
import { exponential } from './backoff.ts'
import { measureController, type ResultOfPass } from './measured.ts'
import type { WorkQueue } from './queue.ts'

/** How a pass ended: nothing left to do, look again at once, or look again after a while. Failure is thrown. */
export type Outcome =
  | { readonly next: 'done' }
  | { readonly next: 'again' }
  | { readonly next: 'wait'; readonly ms: number }

export interface ControllerOptions {
  readonly name: string
  readonly queue: WorkQueue
  readonly reconcile: (key: string, signal: AbortSignal) => Promise<Outcome>
  readonly workers: number
  /** A pass that takes longer is aborted, and retried with back-off once it has ended. */
  readonly passTimeoutMs: number
  readonly clock: Clock
  readonly log: Log
  /** Measures nothing unless given. */
  readonly meter?: Meter
  /** Names a pass in the log: every line that is written within it bears it. */
  readonly newPassId?: () => string
  readonly onPass?: (key: string, ms: number, failed: boolean) => void
}

/** As controller-runtime names them. */
const resultOf = { done: 'success', again: 'requeue', wait: 'requeue_after' } as const

const retryBaseMs = 50
const retryCapMs = 60_000

/**
 * Runs workers over the queue until `signal` is aborted; resolves when the last pass that listens to it has ended.
 * Conflicts run again at once (somebody else wrote first); other failures back off per key, and a success clears it.
 */
export async function runController(options: ControllerOptions, signal: AbortSignal): Promise<void> {
  const { queue, clock, name: controller, newPassId = () => crypto.randomUUID() } = options
  const failures = new Map<string, number>()
  const measured = measureController({ ...options, meter: options.meter ?? unmetered })
  /** What is told, once the controller is stopped, by passes that are waited for. */
  const waiting = new Set<() => void>()

  const settle = (key: string, error: unknown): ResultOfPass => {
    const count = (failures.get(key) ?? 0) + 1
    failures.set(key, count)
    measured.retried()
    if (isReason(error, 'Conflict') && count <= 5) {
      queue.add(key)
      return 'conflict'
    }
    const retryMs = exponential(count, retryBaseMs, retryCapMs)
    options.log.warn('pass failed', { controller, key, err: error, retryMs })
    queue.addAfter(key, retryMs)
    return 'error'
  }

  /** Resolves when a pass has ended, or the controller is stopped. A race with one promise of the latter would never let go. */
  const end = async (running: Promise<unknown>) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    waiting.add(resolve)
    running.then(
      () => resolve(),
      () => resolve(),
    )
    if (!signal.aborted) await promise
    waiting.delete(resolve)
  }

  const pass = async (key: string) => {
    const began = clock.elapsed()
    let result: ResultOfPass | undefined
    let running: Promise<unknown> | undefined
    const reconcile = (passSignal: AbortSignal) => {
      const promise = options.reconcile(key, passSignal)
      running = promise
      return promise
    }
    try {
      const outcome = await withDeadline(options.passTimeoutMs, `reconciling ${key}`, reconcile, {
        signal,
        clock,
      })
      failures.delete(key)
      if (outcome.next === 'again') queue.add(key)
      else if (outcome.next === 'wait') queue.addAfter(key, outcome.ms)
      result = resultOf[outcome.next]
    } catch (error) {
      if (signal.aborted) return
      result = settle(key, error)
    } finally {
      const ms = clock.elapsed() - began
      if (result) measured.passed(result, ms)
      options.log.debug('pass ended', { result: result ?? 'aborted', ms: Math.round(ms) })
      options.onPass?.(key, ms, result === 'error' || result === 'conflict')
      // One that does not listen to its signal keeps its key: two passes over one key would be worse than none.
      // At the end nothing takes keys any more, so nobody waits for it.
      if (running) await end(running)
      queue.done(key)
    }
  }

  const work = async () => {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      const taken = key
      await withLogFields({ controller, key, reconcileID: newPassId() }, () => pass(taken))
    }
  }
  const stop = () => {
    for (const tell of waiting) tell()
    queue.close()
  }
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  await Promise.all(Array.from({ length: options.workers }, work)).finally(measured.end)
}
