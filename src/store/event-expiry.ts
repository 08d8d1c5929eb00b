import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { Event } from '../resources/kinds.ts'
import { isReason } from './errors.ts'
import type { ObjectStore } from './objects.ts'

export interface ExpiryOptions {
  readonly objects: ObjectStore
  readonly clock: Clock
  readonly log: Log
  /** Age after which an event goes, ms; an hour unless given, as kube-apiserver's --event-ttl. */
  readonly ttlMs?: number
  readonly everyMs?: number
}

const pageOf = 500

/**
 * Removes events that did not happen again for an hour, until the signal is aborted: they are news, and the store must
 * not grow by them for ever. By the wall clock, as nothing depends on them. Never rejects.
 */
export async function expireEvents(options: ExpiryOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, everyMs = 300_000 } = options
  while (!signal.aborted) {
    await sleep(clock, everyMs, signal).catch(() => {})
    if (signal.aborted) return
    try {
      const removed = await sweepEvents(options, signal)
      if (removed > 0) log.debug('old events removed', { removed })
    } catch (error) {
      if (!signal.aborted) log.warn('old events not removed', { message: messageOf(error) })
    }
  }
}

/** One round. @returns how many were removed @throws what the store throws */
export async function sweepEvents(options: ExpiryOptions, signal: AbortSignal): Promise<number> {
  const { objects, clock, ttlMs = 3_600_000 } = options
  const before = clock.now() - ttlMs
  let removed = 0
  let next: string | undefined
  do {
    const page = await objects.list(Event, { limit: pageOf, ...(next !== undefined && { continue: next }) })
    next = page.continue
    for (const event of page.items) {
      signal.throwIfAborted()
      if (lastOf(event) < before && (await remove(event, objects))) removed += 1
    }
  } while (next !== undefined)
  return removed
}

/** When it last happened, wall ms. One that does not say so in a way we read is kept. */
function lastOf({ lastTimestamp, eventTime, firstTimestamp, metadata }: Event): number {
  const said = lastTimestamp ?? eventTime ?? firstTimestamp ?? metadata.creationTimestamp
  const at = Date.parse(said ?? '')
  return Number.isNaN(at) ? Number.POSITIVE_INFINITY : at
}

/** Only as it was read: one that has just happened again stays. */
async function remove({ metadata }: Event, objects: ObjectStore): Promise<boolean> {
  const { name, namespace = 'default', resourceVersion } = metadata
  try {
    const same = resourceVersion === undefined ? {} : { resourceVersion }
    await objects.delete(Event, { namespace, name }, same)
    return true
  } catch (error) {
    if (isReason(error, 'Conflict') || isReason(error, 'NotFound')) return false
    throw error
  }
}
