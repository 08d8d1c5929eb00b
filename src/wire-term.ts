import { census } from './controllers/census/index.ts'
import { type HostsOptions, runHosts } from './controllers/hosts/start.ts'
import { runPlacement } from './controllers/placement/start.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import type { Log } from './lib/log.ts'
import { type Meter, unmetered } from './lib/measures.ts'
import { FenceEvidence } from './resources/fence-evidence.ts'
import { systemNamespace } from './resources/host-lease.ts'
import { Host, Lease, StoragePool } from './resources/kinds.ts'
import { VirtualMachine } from './resources/vm.ts'
import { Informer } from './runtime/informer.ts'
import { EventRecorder } from './store/events.ts'
import type { Term } from './wire-leader.ts'

export interface TermOptions {
  readonly hostName: string
  readonly log: Log
  readonly clock?: Clock
  /** Measures nothing unless given. */
  readonly meter?: Meter
  /** What it takes to deal with lost hosts; without it none is. `watch` outlives the term. */
  readonly hosts?: Pick<HostsOptions, 'watch' | 'votes' | 'runCommand' | 'brakePercent' | 'terms'>
}

/**
 * What a leader does for one term: gives machines a host, and takes them from hosts that are lost. Copies of what is
 * stored are made for each term anew.
 */
export async function runTerm({ objects, signal, epoch }: Term, options: TermOptions): Promise<void> {
  const { hostName, clock = systemClock, meter = unmetered } = options
  const log = options.log.child({ part: 'leader' })
  const copies = {
    vms: new Informer(objects, VirtualMachine, log, clock),
    hosts: new Informer(objects, Host, log, clock),
    pools: new Informer(objects, StoragePool, log, clock),
    // Kubernetes keeps a lease for each of its nodes as well, in another namespace.
    leases: new Informer(objects, Lease, log, clock, { namespace: systemNamespace }),
    evidence: new Informer(objects, FenceEvidence, log, clock),
  }
  const recorder = new EventRecorder(objects, {
    ...{ clock, log, meter, host: hostName },
    component: 'plasmavmc-leader',
  })
  const parts = [
    runPlacement(
      {
        ...{ objects, ...copies, clock, log, meter },
        tell: (vm, happening) => recorder.record(VirtualMachine, vm, happening),
      },
      signal,
    ),
  ]
  if (options.hosts)
    parts.push(
      runHosts(
        {
          ...{ objects, ...copies, clock, log, meter, leader: { name: hostName, epoch }, ...options.hosts },
          tell: (kind, about, happening) => recorder.record(kind, about, happening),
        },
        signal,
      ),
    )
  const endCensus = census({ vms: copies.vms, clock, meter })
  try {
    await Promise.all([...parts, ...Object.values(copies).map((copy) => copy.run(signal))])
  } finally {
    endCensus()
  }
}
