import type { Clock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import type { Log } from '../lib/log.ts'
import { isReason } from '../store/errors.ts'
import { exponential } from './backoff.ts'
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
  readonly onPass?: (key: string, ms: number, failed: boolean) => void
}

const retryBaseMs = 50
const retryCapMs = 60_000

/**
 * Runs workers over the queue until `signal` is aborted; resolves when the last pass that listens to it has ended.
 * Conflicts run again at once (somebody else wrote first); other failures back off per key, and a success clears it.
 */
export async function runController(options: ControllerOptions, signal: AbortSignal): Promise<void> {
  const { queue, clock } = options
  const failures = new Map<string, number>()
  const stopped = Promise.withResolvers<void>()

  const settle = (key: string, error: unknown, log: Log) => {
    const count = (failures.get(key) ?? 0) + 1
    failures.set(key, count)
    if (isReason(error, 'Conflict') && count <= 5) return queue.add(key)
    const retryMs = exponential(count, retryBaseMs, retryCapMs)
    log.warn('pass failed', { key, err: error, retryMs })
    queue.addAfter(key, retryMs)
  }

  const pass = async (key: string) => {
    const log = options.log.child({ controller: options.name })
    const began = clock.elapsed()
    let failed = false
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
    } catch (error) {
      if (signal.aborted) return
      failed = true
      settle(key, error, log)
    } finally {
      options.onPass?.(key, clock.elapsed() - began, failed)
      // One that does not listen to its signal keeps its key: two passes over one key would be worse than none.
      // At the end nothing takes keys any more, so nobody waits for it.
      await Promise.race([running?.catch(() => {}), stopped.promise])
      queue.done(key)
    }
  }

  const work = async () => {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) await pass(key)
  }
  const stop = () => {
    stopped.resolve()
    queue.close()
  }
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  await Promise.all(Array.from({ length: options.workers }, work))
}
