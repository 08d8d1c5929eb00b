import { PlasmaError } from '../lib/errors.ts'
import { fencedHolder, hostLeaseName, leaseFacts, systemNamespace } from '../resources/host-lease.ts'
import type { Lease } from '../resources/kinds.ts'
import { awaitObject } from './await.ts'
import type { Client } from './client.ts'
import { getLease, type LeaseView } from './hosts.ts'
import type { Io } from './io.ts'
import { kindOf } from './kinds.ts'
import { progressLine } from './progress.ts'
import type { ObjectView } from './targets.ts'

/** Where a lease does not say how long it lasts, ms: that of every lease of ours. */
const usualDurationMs = 10_000
/** How often a host may be fenced by others while we watch. */
const tries = 3

/** What a host promised in its lease, or why nothing can be relied on. */
export function promiseOf(lease: LeaseView): ReturnType<typeof leaseFacts> | string {
  try {
    return leaseFacts(lease as unknown as Lease)
  } catch (error) {
    return (error as Error).message
  }
}

/** How long a lease must be watched until a host that is well would have renewed it, and one that is not has given it up, ms. */
export function watchMs(lease: LeaseView): number {
  const durationMs = (lease.spec?.leaseDurationSeconds ?? usualDurationMs / 1000) * 1000
  const promise = promiseOf(lease)
  const givenUpMs = typeof promise === 'string' ? 0 : promise.deadlineMs + promise.stopMs
  return Math.ceil(Math.max(durationMs, givenUpMs) * 1.1) + 1_000
}

async function changed(
  client: Client,
  host: string,
  lease: LeaseView,
  io: Io,
): Promise<ObjectView | 'silent' | undefined> {
  const { resourceVersion } = lease.metadata
  const where = { kind: kindOf('leases'), namespace: systemNamespace, name: hostLeaseName(host) }
  try {
    return await awaitObject(
      client,
      {
        ...{ ...where, timeoutMs: watchMs(lease), what: 'a renewal' },
        done: (object) => object?.metadata.resourceVersion !== resourceVersion,
        describe: () => 'silent',
      },
      io,
    )
  } catch (error) {
    if (error instanceof PlasmaError && error.code === 'Timeout') return 'silent'
    throw error
  }
}

/** Tells how far the watching is, once a second; @returns how to end that */
function countdown(host: string, totalMs: number, io: Io): () => void {
  const began = io.clock.elapsed()
  const progress = progressLine(io)
  let cancel = () => {}
  const tick = () => {
    const seconds = Math.round((io.clock.elapsed() - began) / 1000)
    // One line where it can't be overwritten.
    const soFar = io.stderr.isTTY ? `${seconds} of ` : ''
    progress.show(
      `watching whether ${host} renews its lease: silent for ${soFar}${Math.ceil(totalMs / 1000)} s`,
    )
    cancel = io.clock.after(1_000, tick)
  }
  tick()
  return () => {
    cancel()
    progress.end()
  }
}

/**
 * Watches a host's lease for longer than a host that is well leaves it alone.
 * @returns the lease that did not change, and for how long it was watched, ms
 * @throws PlasmaError `HostAlive` once the host renews it
 */
export async function requireSilence(
  client: Client,
  host: string,
  first: LeaseView,
  io: Io,
): Promise<{ readonly lease: LeaseView; readonly silentMs: number }> {
  let lease = first
  for (let i = 0; i < tries; i++) {
    const began = io.clock.elapsed()
    const end = countdown(host, watchMs(lease), io)
    const seen = await changed(client, host, lease, io).finally(end)
    if (seen === 'silent') {
      // A watch may have missed something: what counts is how it stands now.
      const now = await getLease(client, host)
      if (now?.metadata.resourceVersion === lease.metadata.resourceVersion)
        return { lease, silentMs: Math.floor(io.clock.elapsed() - began) }
    }
    const now = await getLease(client, host)
    if (now?.spec?.holderIdentity !== fencedHolder) break
    lease = now
  }
  throw new PlasmaError('HostAlive', `host ${host} is not off: it renewed its lease just now`, {
    hint: `switch it off first; to move its machines while it is up: plasmavmc drain ${host}`,
  })
}
