import { isDeepStrictEqual } from 'node:util'
import { type Clock, rfc3339 } from '../../lib/clock.ts'
import { type ConditionFact, setConditions } from '../../resources/conditions.ts'
import { Host, StoragePool } from '../../resources/kinds.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'

/** What one host sees of a pool's directory: what is free there, such as `12.3Gi`, or why nothing can be kept there. */
export type PoolLook = { readonly available: string } | { readonly problem: string }

export interface PoolDeps {
  readonly objects: ObjectStore
  readonly pools: () => readonly StoragePool[]
  readonly look: (path: string) => Promise<PoolLook>
  readonly clock: Clock
}

/**
 * Records what this host sees of every pool; writes only changes. Where several hosts each have a directory of their own
 * under one pool's name, no one figure would be true, and none is written.
 */
export async function reconcilePools(deps: PoolDeps): Promise<void> {
  const pools = deps.pools()
  if (pools.length === 0) return
  const { items: hosts } = await deps.objects.list(Host)
  for (const pool of pools) {
    if (hosts.length > 1 && !pool.spec.shared) continue
    await reconcilePool(pool, deps)
  }
}

async function reconcilePool(pool: StoragePool, deps: PoolDeps): Promise<void> {
  const seen = await deps.look(pool.spec.path)
  const usable = 'available' in seen
  const ready: ConditionFact = usable
    ? { type: 'Ready', status: 'True', reason: 'Ready', message: '' }
    : { type: 'Ready', status: 'False', reason: 'PathUnusable', message: `spec.path: ${seen.problem}` }
  const { metadata, status: before } = pool
  const at = rfc3339(deps.clock.now())
  const status = {
    ...(usable && { available: seen.available }),
    conditions: setConditions(before?.conditions, [ready], at, metadata.generation ?? 0),
  }
  if (isDeepStrictEqual(status, before)) return
  try {
    await deps.objects.updateStatus(StoragePool, { ...pool, status })
  } catch (error) {
    // It was changed or removed meanwhile: the next look sees that.
    if (!isReason(error, 'Conflict') && !isReason(error, 'NotFound')) throw error
  }
}
