import { type Clock, rfc3339Micro } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { apiVersionOf } from '../resources/define.ts'
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
    }
  | { readonly held: false; readonly holder: string; readonly epoch: number; readonly retryInMs: number }

export interface LeaseOptions {
  readonly objects: ObjectStore
  readonly clock: Clock
  readonly ref: Ref
  /** Unique among all that may ever hold it at the same time. */
  readonly identity: string
  readonly terms: LeaseTerms
}

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

  constructor(options: LeaseOptions) {
    this.#options = options
  }

  /**
   * Makes, takes, or renews it once. Only a write of this call that succeeded makes it held.
   * @throws ApiError other than Conflict and AlreadyExists: then whether it was written is unknown
   */
  async attempt(): Promise<Attempt> {
    const { objects, clock, identity, terms } = this.#options
    const lease = await this.#read()
    if (!lease) return this.#write(() => objects.create(Lease, this.#fresh()), 1)
    const { holderIdentity: holder = '', leaseTransitions: epoch = 0 } = lease.spec
    if (holder === identity && this.#epoch === epoch) {
      return this.#write(() => objects.update(Lease, this.#renewed(lease, epoch)), epoch)
    }
    this.#epoch = undefined
    const left = this.#leftMs(lease.metadata.resourceVersion ?? '', terms.durationMs, clock.elapsed())
    // Our own from an earlier life: nobody else has that identity, so it need not run out first.
    if (holder !== '' && holder !== identity && left > 0)
      return { held: false, holder, epoch, retryInMs: Math.min(left, terms.renewMs) }
    const next = epoch + 1
    return this.#write(() => objects.update(Lease, this.#renewed(lease, next, true)), next)
  }

  /** Gives it up, so that others need not wait until it runs out. Does nothing where it is not held. */
  async release(): Promise<void> {
    const lease = await this.#read()
    const { identity, objects } = this.#options
    if (this.#epoch === undefined || lease?.spec.holderIdentity !== identity) return
    if (lease.spec.leaseTransitions !== this.#epoch) return
    this.#epoch = undefined
    const { holderIdentity: _, ...spec } = lease.spec
    await objects.update(Lease, { ...lease, spec })
  }

  async #read(): Promise<Lease | undefined> {
    try {
      return await this.#options.objects.get(Lease, this.#options.ref)
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }

  async #write(send: () => Promise<Lease>, epoch: number): Promise<Attempt> {
    const { clock } = this.#options
    const sentAt = clock.elapsed()
    try {
      const written = await send()
      this.#epoch = epoch
      this.#seen = { resourceVersion: written.metadata.resourceVersion ?? '', at: sentAt }
      return { held: true, epoch, sentAt }
    } catch (error) {
      if (!isReason(error, 'Conflict') && !isReason(error, 'AlreadyExists')) throw error
      this.#epoch = undefined
      return { held: false, holder: '', epoch: 0, retryInMs: 0 }
    }
  }

  #leftMs(resourceVersion: string, durationMs: number, now: number): number {
    if (this.#seen?.resourceVersion !== resourceVersion) this.#seen = { resourceVersion, at: now }
    return this.#seen.at + durationMs - now
  }

  #spec(epoch: number, acquireTime: string): Lease['spec'] {
    const { identity, terms, clock } = this.#options
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(terms.durationMs / 1000),
      acquireTime,
      renewTime: rfc3339Micro(clock.now()),
      leaseTransitions: epoch,
    }
  }

  #fresh(): Lease {
    const { ref, clock } = this.#options
    const metadata = { name: ref.name, ...(ref.namespace !== undefined && { namespace: ref.namespace }) }
    return {
      apiVersion: apiVersionOf(Lease),
      kind: 'Lease',
      metadata,
      spec: this.#spec(1, rfc3339Micro(clock.now())),
    }
  }

  #renewed(lease: Lease, epoch: number, taken = false): Lease {
    const now = rfc3339Micro(this.#options.clock.now())
    return { ...lease, spec: this.#spec(epoch, taken ? now : (lease.spec.acquireTime ?? now)) }
  }
}
