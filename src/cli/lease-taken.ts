import { fencedHolder, hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import { lookAtOne } from './await.ts'
import type { Client } from './client.ts'
import type { LeaseView } from './hosts.ts'
import { kindOf, pathOf } from './kinds.ts'
import type { ObjectView } from './targets.ts'

export interface TakenOptions {
  readonly client: Client
  readonly host: string
  /** That of the evidence. */
  readonly epoch: number
  readonly signal: AbortSignal
  /** Rejects where the evidence is no more. */
  readonly refused: () => Promise<void>
}

/** Resolves once the leader took the host's lease on the evidence; what `refused` says ends it. */
export async function requireTaken(options: TakenOptions): Promise<void> {
  const { client, host, epoch, signal, refused } = options
  const taken = (lease: LeaseView | undefined) =>
    lease?.spec?.holderIdentity === fencedHolder && (lease.spec.leaseTransitions ?? 0) >= epoch
  const kind = kindOf('leases')
  for (;;) {
    signal.throwIfAborted()
    const one = { kind, namespace: systemNamespace, name: hostLeaseName(host) }
    const { object: lease, resourceVersion } = await lookAtOne<LeaseView & ObjectView>(client, one, signal)
    if (taken(lease)) return
    await refused()
    const query = {
      ...{ fieldSelector: `metadata.name=${one.name}`, resourceVersion },
      timeoutSeconds: '2',
    }
    const path = pathOf(kind, systemNamespace)
    for await (const { type, object } of client.watch<LeaseView>(path, { query, signal }))
      if (type !== 'BOOKMARK' && taken(object)) return
  }
}
