import type { Clock } from '../lib/clock.ts'
import type { Meter } from '../lib/measures.ts'
import type { WorkQueue } from './queue.ts'

export type ResultOfPass = 'success' | 'requeue' | 'requeue_after' | 'conflict' | 'error'

export interface MeasuredOptions {
  /** Of the controller; its queue is called the same. */
  readonly name: string
  readonly queue: WorkQueue
  readonly workers: number
  readonly clock: Clock
  readonly meter: Meter
}

export interface MeasuredController {
  passed(result: ResultOfPass, ms: number): void
  /** Its key goes back after a failure. */
  retried(): void
  /** Takes back its gauges. */
  end(): void
}

/** Measures a controller and its queue, as controller-runtime and client-go's workqueue do. */
export function measureController(options: MeasuredOptions): MeasuredController {
  const { name, queue, workers, clock, meter } = options
  const [byController, byName] = [{ controller: name }, { name }]
  /** Monotonic ms since when a key waits, and since when a worker has one: no more of them than of keys. */
  const waiting = new Map<string, number>()
  const running = new Map<string, number>()
  queue.observe({
    added: (key) => {
      meter.add('plasmavmc_workqueue_adds_total', byName)
      waiting.set(key, clock.elapsed())
    },
    started: (key) => {
      const now = clock.elapsed()
      const since = waiting.get(key) ?? now
      waiting.delete(key)
      running.set(key, now)
      meter.observe('plasmavmc_workqueue_queue_duration_seconds', byName, (now - since) / 1000)
    },
    done: (key) => {
      const since = running.get(key)
      running.delete(key)
      if (since === undefined) return
      const ms = clock.elapsed() - since
      meter.observe('plasmavmc_workqueue_work_duration_seconds', byName, ms / 1000)
    },
  })
  const ages = () => [...running.values()].map((since) => (clock.elapsed() - since) / 1000)
  const ends = [
    meter.gauge('plasmavmc_workqueue_depth', () => [[byName, queue.depth]]),
    meter.gauge('plasmavmc_workqueue_unfinished_work_seconds', () => [
      [byName, ages().reduce((sum, age) => sum + age, 0)],
    ]),
    meter.gauge('plasmavmc_workqueue_longest_running_processor_seconds', () => [
      [byName, Math.max(0, ...ages())],
    ]),
    meter.gauge('plasmavmc_controller_max_concurrent_reconciles', () => [[byController, workers]]),
    meter.gauge('plasmavmc_controller_active_workers', () => [[byController, running.size]]),
  ]
  return {
    passed: (result, ms) => {
      meter.add('plasmavmc_controller_reconcile_total', { ...byController, result })
      meter.observe('plasmavmc_controller_reconcile_time_seconds', byController, ms / 1000)
      if (result === 'error') meter.add('plasmavmc_controller_reconcile_errors_total', byController)
    },
    retried: () => meter.add('plasmavmc_workqueue_retries_total', byName),
    end: () => {
      for (const end of ends) end()
    },
  }
}
