import type { EventEmitter } from 'node:events'
import { mastersGroup } from '../auth/identity.ts'
import { systemNamespace } from '../resources/host-lease.ts'
import { ApiError } from '../store/errors.ts'
import type { Admitted } from './admit.ts'
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
  const { name, groups } = admitted.identity
  if (!groups.includes(mastersGroup)) fair.spend(name)
  return fair.enter(name, () => goneOf(client))
}

/** Aborted once the client of a request is gone before its answer. */
function goneOf(client: Pick<EventEmitter, 'once'>): AbortSignal {
  const gone = new AbortController()
  client.once('close', () => gone.abort(new ApiError('Timeout', 'the client did not wait for its answer')))
  return gone.signal
}
