import type { Tenure } from '../../host/ports.ts'
import { PlasmaError } from '../../lib/errors.ts'

/** Less than this of a lease left, and a guest is rather started after the next renewal, ms. */
const enoughMs = 1_000
/** A fork or a command to QEMU takes less, ms. */
const leastMs = 250

/** Why no guest may be started now, nor go on, and when to look again. */
export interface LeaseWait {
  readonly why: string
  readonly recheckMs: number
}

const expiringRecheckMs = 500
/** Where it is held again is noticed at once; this is for what nobody thought of. */
const lostRecheckMs = 5_000

/**
 * Whether a plan may start a guest, or let one go on. Pure.
 * @param recorded the machine's placementEpoch as it was read: a newer one than that of the lease means that what is
 *   known of the lease is old
 */
export function leaseWait(tenure: Tenure, recorded: number | undefined): LeaseWait | undefined {
  switch (tenure.state) {
    case 'single':
      return undefined
    case 'lost':
      // Without its words, which tell how long it has been: a status that changes with the time is written again and again.
      return {
        why: 'the host does not hold its lease; plasmavmc describe host says why',
        recheckMs: lostRecheckMs,
      }
    case 'held':
      if (recorded !== undefined && recorded > tenure.epoch) {
        const why = `it was placed here under epoch ${recorded} of the host's lease, and that of epoch ${tenure.epoch} is held`
        return { why, recheckMs: expiringRecheckMs }
      }
      if (tenure.leftMs > enoughMs) return undefined
      return { why: "the host's lease runs out unless it is renewed", recheckMs: expiringRecheckMs }
  }
}

/**
 * The check right before a guest gets to run. An agent that slept through a fence finds a lease that is held again, of
 * another epoch than the one recorded with the launch.
 * @throws PlasmaError `LeaseLost`
 */
export function requireTenure(tenure: Tenure, recorded: number | undefined): void {
  if (tenure.state === 'single') return
  const lost = (why: string) => new PlasmaError('LeaseLost', `no guest is started or resumed here: ${why}`)
  if (tenure.state === 'lost') throw lost(tenure.why)
  if (tenure.epoch !== recorded)
    throw lost(
      `the lease is held under epoch ${tenure.epoch}, the machine was taken up under ${recorded ?? 'none'}`,
    )
  if (tenure.leftMs <= leastMs) throw lost("the host's lease runs out")
}
