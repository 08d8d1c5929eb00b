import { unmetered } from '../../lib/measures.ts'
import { runController } from '../../runtime/controller.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import { Assumed } from './assumed.ts'
import { type PlacementDeps, place } from './index.ts'
import { placementTriggers } from './triggers.ts'

export interface PlacementOptions extends Omit<PlacementDeps, 'assumed' | 'told' | 'left'> {
  readonly onPass?: (key: string, ms: number, failed: boolean) => void
}

/** Decisions depend on each other: there is one key, and one pass at a time. */
const key = 'placement'
const passTimeoutMs = 60_000
/** Least time between the starts of two passes: each looks at everything, and takes all that came meanwhile. */
const passEveryMs = 100

/**
 * Gives hosts to machines until the signal is aborted. Only the leader runs it, on informers of its own term. Start it
 * before them.
 */
export async function runPlacement(options: PlacementOptions, signal: AbortSignal): Promise<void> {
  const { vms, hosts, pools, leases, clock, log, meter = unmetered } = options
  let unplaced = 0
  const left = (now: number) => {
    unplaced = now
  }
  const deps: PlacementDeps = { ...options, assumed: new Assumed(), told: new Map(), left }
  const stopMeasuring = meter.gauge('plasmavmc_placement_unplaced', () => [[{}, unplaced]])
  const queue = new WorkQueue(clock)
  let last = Number.NEGATIVE_INFINITY
  const look = () => queue.addAfter(key, last + passEveryMs - clock.elapsed())
  const subscription = placementTriggers({ vms, hosts, pools, leases }).subscribe(look)
  void Promise.all([vms, hosts, pools, leases].map((one) => one.whenSynced())).then(look)
  try {
    await runController(
      {
        ...{ name: 'placement', queue, workers: 1, passTimeoutMs, clock, log, meter },
        reconcile: (_key, passSignal) => {
          last = clock.elapsed()
          return place(deps, passSignal)
        },
        ...(options.onPass && { onPass: options.onPass }),
      },
      signal,
    )
  } finally {
    subscription.unsubscribe()
    stopMeasuring()
  }
}
