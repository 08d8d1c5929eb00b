import { merge, Observable } from 'rxjs'
import type { KubeObject } from '../../resources/define.ts'
import { hostOfLease, systemNamespace } from '../../resources/host-lease.ts'
import type { Host, Lease, StoragePool } from '../../resources/kinds.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'

export interface TriggerDeps {
  readonly vms: Informer<VirtualMachine>
  readonly hosts: Informer<Host>
  readonly pools: Informer<StoragePool>
  readonly leases: Informer<Lease>
}

/** Tells when what `partOf` takes of an object becomes another, and when an object comes or goes. */
function changes<T extends KubeObject>(
  informer: Informer<T>,
  partOf: (object: T) => unknown,
): Observable<void> {
  return new Observable((subscriber) => {
    const seen = new Map<string, string>()
    return informer.onChange((key, object) => {
      const part = object && JSON.stringify(partOf(object))
      if (part === seen.get(key)) return
      if (part === undefined) seen.delete(key)
      else seen.set(key, part)
      subscriber.next()
    })
  })
}

/** Of a machine that has a host, what others' choices depend on; of one that has none, everything. */
function ofMachine({ metadata, status }: VirtualMachine): unknown {
  const { uid, resourceVersion, generation, labels } = metadata
  if (status?.hostName === undefined) return [uid, resourceVersion]
  return [uid, generation, labels, status.hostName, status.disksHost === undefined]
}

/** Not what an agent counts and measures every few seconds. */
function ofHost({ metadata, status }: Host): unknown {
  const { uid, generation, labels } = metadata
  const ready = status?.conditions.find(({ type }) => type === 'Ready')
  return [
    ...[uid, generation, labels, status?.cpus, status?.memory, status?.accelerator],
    ...[ready?.status, ready?.reason, status?.orphans.map((orphan) => orphan.uid)],
  ]
}

/** Not its renewals; of leases that are no host's, nothing. */
function ofLease({ metadata, spec }: Lease): unknown {
  const isHosts = metadata.namespace === systemNamespace && hostOfLease(metadata.name) !== undefined
  return isHosts ? [spec.holderIdentity, spec.leaseTransitions] : undefined
}

/** Whenever something has changed that placement decides on. Decides nothing. */
export function placementTriggers({ vms, hosts, pools, leases }: TriggerDeps): Observable<void> {
  return merge(
    changes(vms, ofMachine),
    changes(hosts, ofHost),
    changes(pools, ({ metadata, spec }) => [metadata.uid, spec]),
    changes(leases, ofLease),
  )
}
