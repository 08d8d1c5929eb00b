import type { Meter } from '../../lib/measures.ts'
import type { VmStatus } from '../../resources/vm.ts'

/**
 * Counts what a status that was just stored tells and the one before did not: an end of a QEMU, once for each launch, and
 * restarts. Exact, as the store took one after the other.
 */
export function countChange(before: VmStatus | undefined, now: VmStatus, meter: Meter): void {
  const { lastExit } = now
  const known = before?.lastExit
  const isNew = lastExit && (lastExit.launchId !== known?.launchId || lastExit.at !== known?.at)
  if (isNew) meter.add('plasmavmc_vm_exits_total', { reason: lastExit.reason })
  const restarts = now.restarts - (before?.restarts ?? 0)
  if (restarts > 0) meter.add('plasmavmc_vm_restarts_total', {}, restarts)
}
