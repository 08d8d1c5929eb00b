import { fencedHolder, hostLeaseName, systemNamespace } from '../resources/host-lease.ts'
import type { Client } from './client.ts'
import { getLease, type LeaseView } from './hosts.ts'
import { kindOf, pathOf } from './kinds.ts'

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
  for (;;) {
    signal.throwIfAborted()
    const lease = await getLease(client, host)
    if (taken(lease)) return
    await refused()
    const query = {
      fieldSelector: `metadata.name=${hostLeaseName(host)}`,
      resourceVersion: lease?.metadata.resourceVersion,
      timeoutSeconds: '2',
    }
    const path = pathOf(kindOf('leases'), systemNamespace)
    for await (const { type, object } of client.watch<LeaseView>(path, { query, signal }))
      if (type !== 'BOOKMARK' && taken(object)) return
  }
}
