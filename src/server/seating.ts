import type { EventEmitter } from 'node:events'
import { type Identity, mastersGroup } from '../auth/identity.ts'
import { systemNamespace } from '../resources/host-lease.ts'
import { ApiError } from '../store/errors.ts'
import { type Admitted, refusedSender } from './admit.ts'
import type { FairQueue, Leave } from './fair.ts'

/**
 * What waits for nobody: the leases of hosts and of the leader, which only agents and administrators may write. A host
 * whose lease waits behind somebody's list stops its machines. Kubernetes exempts them, too (API priority and fairness).
 */
export function isExempt({ target }: Pick<Admitted, 'target'>): boolean {
  return (
    !('path' in target) &&
    target.group === 'coordination.k8s.io' &&
    target.resource === 'leases' &&
    target.namespace === systemNamespace
  )
}

const nothing: Leave = () => {}

/**
 * A seat for an admitted request, when it is its user's turn. Administrators wait as others do, but have no rate: who
 * mends a cluster in trouble is not to be held up by it.
 * @param client tells by `close` that it is gone: a response, or a socket
 * @throws ApiError TooManyRequests; Timeout where the client is gone
 */
export async function seatFor(
  admitted: Admitted,
  fair: FairQueue,
  client: Pick<EventEmitter, 'once'>,
): Promise<Leave> {
  if (isExempt(admitted)) return nothing
  spendAs(admitted.identity, fair)
  return fair.enter(admitted.identity.name, () => goneOf(client))
}

/** Counts a request against the rate of its user; administrators have none. @throws ApiError TooManyRequests */
export function spendAs({ name, groups }: Identity, fair: Pick<FairQueue, 'spend'>): void {
  if (!groups.includes(mastersGroup)) fair.spend(name)
}

/**
 * What is to be answered to a request that ended with that error before it had a seat: it was read and judged as others
 * are, and costs its sender the same. @returns TooManyRequests in place of the refusal once that is too much
 */
export function refusalPaid(error: unknown, fair: Pick<FairQueue, 'spend'>): unknown {
  const sender = refusedSender(error)
  if (!sender) return error
  try {
    spendAs(sender, fair)
    return error
  } catch (tooMany) {
    return tooMany
  }
}

/** Aborted once the client of a request is gone before its answer. */
function goneOf(client: Pick<EventEmitter, 'once'>): AbortSignal {
  const gone = new AbortController()
  client.once('close', () => gone.abort(new ApiError('Timeout', 'the client did not wait for its answer')))
  return gone.signal
}
