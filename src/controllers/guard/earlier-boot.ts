import { leaseFacts } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'

/**
 * For how much longer a lease that an earlier boot of this host held must be silent, ms: the host may be a copy of its
 * data folder, and the one that held the lease may still run. Undefined where this boot held it.
 * @param silentMs for how long it was seen not to change
 */
export function silenceLeft(
  lease: Lease,
  silentMs: number,
  { bootId, durationMs }: { readonly bootId: string; readonly durationMs: number },
): number | undefined {
  const before = announced(lease)
  if (before?.bootId === bootId) return undefined
  const needed = before ? before.deadlineMs + before.stopMs : durationMs
  return Math.max(0, needed - silentMs)
}

function announced(lease: Lease) {
  try {
    return leaseFacts(lease)
  } catch {
    return undefined
  }
}
