import { type Clock, rfc3339Micro } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { apiVersionOf } from '../resources/define.ts'
import { fencedHolder } from '../resources/host-lease.ts'
import { Lease } from '../resources/kinds.ts'
import { isReason } from '../store/errors.ts'
import type { ObjectStore, Ref } from '../store/objects.ts'

/** Periods of a lease, ms. */
export interface LeaseTerms {
  /** Between two renewals. */
  readonly renewMs: number
  /** After this long without a renewal that succeeded, counted from when that one was sent, the holder has lost it. */
  readonly deadlineMs: number
  /** Others may take it this long after they last saw it change. */
  readonly durationMs: number
}

export const defaultTerms: LeaseTerms = { renewMs: 3_000, deadlineMs: 6_000, durationMs: 10_000 }

/** Two clocks of good machines drift apart by much less than this part of a second a second. */
const clockDrift = 0.01

/**
 * Refuses terms under which a holder could still act when another may take over:
 * (deadline + stop) / slowest clock must be less than duration / fastest clock.
 * @param stopMs how long the holder needs at most to stop what the lease allowed
 * @throws PlasmaError `BadLeaseTerms` with the numbers
 */
export function checkTerms(terms: LeaseTerms, stopMs: number): void {
  const { renewMs, deadlineMs, durationMs } = terms
  const stopped = (deadlineMs + stopMs) * (1 + clockDrift)
  const taken = durationMs * (1 - clockDrift)
  if (renewMs > 0 && renewMs < deadlineMs && stopped < taken) return
  throw new PlasmaError(
    'BadLeaseTerms',
    `a lease of ${durationMs} ms can't be given up in time: renewed every ${renewMs} ms, given up ${deadlineMs} ms after the last renewal, ${stopMs} ms to stop`,
    { hint: 'renewal < deadline, and deadline + time to stop + 2 % < duration' },
  )
}

export type Attempt =
  | {
      readonly held: true
      /** Grows each time the lease changes hands. */
      readonly epoch: number
      /** Monotonic ms at which the write that made or kept it ours was sent. */
      readonly sentAt: number
      /** What `facts` gave for that write; absent without `facts`. */
      readonly facts?: LeaseFacts
    }
  | { readonly held: false; readonly holder: string; readonly epoch: number; readonly retryInMs: number }

/** Annotations, all with a prefix of ours. */
export type LeaseFacts = Readonly<Record<string, string>>

/**
 * For a lease that belongs to one holder for ever, as a host's does: its epoch tells how often it was taken from it, so
 * taking it up again keeps the epoch.
 */
export interface OwnLease {
  /**
   * Asked before it is taken up anew: from an earlier life of ours, from whoever fenced us, or from nobody.
   * @param silentMs for how long we have seen it not change
   * @returns ms to wait; 0 where it may be taken up now
   */
  readonly mayReturn: (lease: Lease, silentMs: number) => Promise<number>
  /** The least epoch to have it under, where it is gone or went back: epochs that were recorded must not come again. */
  readonly leastEpoch?: number
}

export interface LeaseOptions {
  readonly objects: ObjectStore
  readonly clock: Clock
  readonly ref: Ref
  /** Unique among all that may ever hold it at the same time. */
  readonly identity: string
  readonly terms: LeaseTerms
  /** What each write says besides; asked right before it is sent. They take the place of those with our prefix. */
  readonly facts?: () => LeaseFacts
  readonly own?: OwnLease
}

const factPrefix = 'plasmavmc.io/'

/**
 * One contender for a Kubernetes Lease, by compare-and-swap alone. Whether another's lease has run out is judged by the
 * local monotonic clock since its record was last seen to change, never by the times that stand in it: two hosts'
 * clocks are not compared (client-go's leaderelection does the same).
 */
export class LeaseContender {
  readonly #options: LeaseOptions
  #seen: { readonly resourceVersion: string; readonly at: number } | undefined
  /** The epoch under which this contender holds it; undefined while it does not. */
  #epoch: number | undefined
  #lastEpoch: number

  constructor(options: LeaseOptions) {
    this.#options = options
    this.#lastEpoch = options.own?.leastEpoch ?? 1
  }

  /**
   * Makes, takes, or renews it once. Only a write of this call that succeeded makes it held.
   * @throws ApiError other than Conflict and AlreadyExists: then whether it was written is unknown
   */
  async attempt(): Promise<Attempt> {
    const { objects, clock, identity, terms, own } = this.#options
    const lease = await this.#read()
    if (!lease) {
      const epoch = own ? this.#lastEpoch : 1
      return this.#write((facts) => objects.create(Lease, this.#fresh(epoch, facts)), epoch)
    }
    const { holderIdentity: holder = '', leaseTransitions: epoch = 0 } = lease.spec
    if (holder === identity && this.#epoch === epoch) {
      return this.#write((facts) => objects.update(Lease, this.#renewed(lease, epoch, facts)), epoch)
    }
    this.#epoch = undefined
    const silent = this.#silentMs(lease.metadata.resourceVersion ?? '', clock.elapsed())
    const left = terms.durationMs - silent
    if (own && [identity, fencedHolder, ''].includes(holder)) return this.#return(own, lease, silent)
    // Our own from an earlier life: nobody else has that identity, so it need not run out first.
    if (holder !== '' && holder !== identity && left > 0)
      return { held: false, holder, epoch, retryInMs: Math.min(left, terms.renewMs) }
    const next = epoch + 1
    return this.#write((facts) => objects.update(Lease, this.#renewed(lease, next, facts, true)), next)
  }

  /** Gives it up, so that others need not wait until it runs out. Does nothing where it is not held. */
  async release(): Promise<void> {
    const lease = await this.#read()
    const { identity, objects } = this.#options
    if (this.#epoch === undefined || lease?.spec.holderIdentity !== identity) return
    if (lease.spec.leaseTransitions !== this.#epoch) return
    const { holderIdentity: _, ...spec } = lease.spec
    await objects.update(Lease, { ...lease, spec })
    this.#epoch = undefined
  }

  async #read(): Promise<Lease | undefined> {
    try {
      return await this.#options.objects.get(Lease, this.#options.ref)
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }

  async #return(own: OwnLease, lease: Lease, silentMs: number): Promise<Attempt> {
    const { objects, terms } = this.#options
    const { holderIdentity: holder = '', leaseTransitions = 0 } = lease.spec
    const waitMs = await own.mayReturn(lease, silentMs)
    if (waitMs > 0)
      return { held: false, holder, epoch: leaseTransitions, retryInMs: Math.min(waitMs, terms.renewMs) }
    // A store that was restored may tell of an older one; it was recorded with machines, and must not come again.
    const epoch = Math.max(leaseTransitions, this.#lastEpoch)
    return this.#write((facts) => objects.update(Lease, this.#renewed(lease, epoch, facts, true)), epoch)
  }

  async #write(send: (facts?: LeaseFacts) => Promise<Lease>, epoch: number): Promise<Attempt> {
    const { clock } = this.#options
    const facts = this.#options.facts?.()
    const sentAt = clock.elapsed()
    try {
      const written = await send(facts)
      this.#epoch = epoch
      this.#lastEpoch = Math.max(this.#lastEpoch, epoch)
      this.#seen = { resourceVersion: written.metadata.resourceVersion ?? '', at: sentAt }
      return { held: true, epoch, sentAt, ...(facts && { facts }) }
    } catch (error) {
      if (!isReason(error, 'Conflict') && !isReason(error, 'AlreadyExists')) throw error
      this.#epoch = undefined
      return { held: false, holder: '', epoch: 0, retryInMs: 0 }
    }
  }

  #silentMs(resourceVersion: string, now: number): number {
    if (this.#seen?.resourceVersion !== resourceVersion) this.#seen = { resourceVersion, at: now }
    return now - this.#seen.at
  }

  #spec(epoch: number, acquireTime: string): Lease['spec'] {
    const { identity, terms, clock } = this.#options
    return leaseSpec({ holder: identity, terms, epoch, acquireTime, now: clock.now() })
  }

  #fresh(epoch: number, facts?: LeaseFacts): Lease {
    const { ref, clock } = this.#options
    const metadata = {
      name: ref.name,
      ...(ref.namespace !== undefined && { namespace: ref.namespace }),
      ...(facts && { annotations: { ...facts } }),
    }
    const spec = this.#spec(epoch, rfc3339Micro(clock.now()))
    return { apiVersion: apiVersionOf(Lease), kind: 'Lease', metadata, spec }
  }

  #renewed(lease: Lease, epoch: number, facts?: LeaseFacts, taken = false): Lease {
    const now = rfc3339Micro(this.#options.clock.now())
    const spec = this.#spec(epoch, taken ? now : (lease.spec.acquireTime ?? now))
    if (!facts) return { ...lease, spec }
    const others = Object.entries(lease.metadata.annotations ?? {}).filter(
      ([name]) => !name.startsWith(factPrefix),
    )
    const annotations = { ...Object.fromEntries(others), ...facts }
    return { ...lease, metadata: { ...lease.metadata, annotations }, spec }
  }
}

function leaseSpec(of: {
  readonly holder: string
  readonly terms: Pick<LeaseTerms, 'durationMs'>
  readonly epoch: number
  readonly acquireTime: string
  readonly now: number
}): Lease['spec'] {
  return {
    holderIdentity: of.holder,
    leaseDurationSeconds: Math.ceil(of.terms.durationMs / 1000),
    acquireTime: of.acquireTime,
    renewTime: rfc3339Micro(of.now),
    leaseTransitions: of.epoch,
  }
}

export interface TakeOverOptions {
  readonly objects: ObjectStore
  readonly clock: Clock
  readonly terms: Pick<LeaseTerms, 'durationMs'>
  /** For how long the caller has seen exactly this resourceVersion by its own monotonic clock, ms. */
  readonly silentMs: number
  /** How long that must be, by what the holder announced, ms. */
  readonly neededMs: number
}

/**
 * Takes a host's lease from it: holder `fenced`, the next epoch; what the host announced stays. By compare-and-swap on
 * exactly the given resourceVersion: whatever the host has written since, this fails.
 * @returns the lease as taken; undefined where it has changed or is gone
 * @throws PlasmaError `LeaseNotSilent` where it was not silent for as long as it must be; ApiError where whether it was
 *   taken is unknown
 */
export async function takeOver(lease: Lease, options: TakeOverOptions): Promise<Lease | undefined> {
  const { objects, clock, terms, silentMs, neededMs } = options
  const { name, resourceVersion } = lease.metadata
  if (resourceVersion === undefined || !(silentMs >= neededMs))
    throw new PlasmaError(
      'LeaseNotSilent',
      `lease ${name} was seen silent for ${Math.floor(silentMs)} ms, which must be ${neededMs}`,
    )
  const epoch = (lease.spec.leaseTransitions ?? 0) + 1
  const now = clock.now()
  const spec = leaseSpec({ holder: fencedHolder, terms, epoch, acquireTime: rfc3339Micro(now), now })
  try {
    return await objects.update(Lease, { ...lease, spec })
  } catch (error) {
    if (isReason(error, 'Conflict') || isReason(error, 'NotFound')) return undefined
    throw error
  }
}
