import { hostOfLease } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'

/** A read that took longer says too little of when what it returned was so. */
export const slowReadMs = 1_500
/** Between two reads; after a longer gap this process may have slept through anything. */
export const longestGapMs = 3_000

/** One list of all host leases. Times are this process's monotonic ms. */
export interface Read {
  readonly startedAt: number
  readonly endedAt: number
  readonly leases: readonly Lease[]
}

/** One host's lease as the reads without a break have shown it. */
export interface Sight {
  readonly lease: Lease
  /** End of the read that first returned this version: it has not changed since, for certain. */
  readonly since: number
  /** Start of the last read that did not return it yet; undefined where none of them did not. */
  readonly notBefore?: number
}

/** What reads without a break between them have shown. */
export interface Watched {
  /** End of the first of them. */
  readonly begunAt: number
  readonly last: { readonly startedAt: number; readonly endedAt: number }
  /** By host. */
  readonly sights: ReadonlyMap<string, Sight>
}

/** How long a lease is unchanged, monotonic ms: for certain, and at most as far as can be told. */
export interface Silence {
  readonly certainMs: number
  /** Undefined where it was never seen to change: it may have been so for any time. */
  readonly possibleMs?: number
}

/**
 * What is known after one more read. A read that failed (undefined), was slow, or came after a gap begins anew: in the
 * meantime the hosts may have been unable to renew for the same reason that kept us from looking.
 */
export function watched(before: Watched | undefined, read: Read | undefined): Watched | undefined {
  if (!read) return undefined
  const { startedAt, endedAt } = read
  const unbroken =
    before !== undefined &&
    endedAt - startedAt <= slowReadMs &&
    startedAt - before.last.endedAt <= longestGapMs
  const sights = new Map<string, Sight>()
  for (const lease of read.leases) {
    const host = hostOfLease(lease.metadata.name)
    if (host === undefined) continue
    const was = unbroken ? before.sights.get(host) : undefined
    if (was && sameVersion(was.lease, lease)) sights.set(host, was)
    else sights.set(host, { lease, since: endedAt, ...(unbroken && { notBefore: before.last.startedAt }) })
  }
  return { begunAt: unbroken ? before.begunAt : endedAt, last: { startedAt, endedAt }, sights }
}

function sameVersion({ metadata: a }: Lease, { metadata: b }: Lease): boolean {
  return a.resourceVersion === b.resourceVersion && a.uid === b.uid
}

/**
 * How long a host's lease was silent when the last read began. Time that passed since then counts for nothing: this
 * process may have spent it asleep.
 */
export function silenceOf(sight: Sight, { last }: Watched): Silence {
  const certainMs = Math.max(0, last.startedAt - sight.since)
  if (sight.notBefore === undefined) return { certainMs }
  return { certainMs, possibleMs: Math.max(0, last.startedAt - sight.notBefore) }
}
