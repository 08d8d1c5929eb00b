import { runPlacement } from './controllers/placement/start.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import type { Log } from './lib/log.ts'
import { Host, Lease, StoragePool } from './resources/kinds.ts'
import { VirtualMachine } from './resources/vm.ts'
import { Informer } from './runtime/informer.ts'
import { EventRecorder } from './store/events.ts'
import type { Term } from './wire-leader.ts'

export interface TermOptions {
  readonly hostName: string
  readonly log: Log
  readonly clock?: Clock
}

/** What a leader does for one term: gives machines a host. Copies of what is stored are made for each term anew. */
export async function runTerm({ objects, signal }: Term, options: TermOptions): Promise<void> {
  const { hostName, clock = systemClock } = options
  const log = options.log.child({ part: 'leader' })
  const copies = {
    vms: new Informer(objects, VirtualMachine, log, clock),
    hosts: new Informer(objects, Host, log, clock),
    pools: new Informer(objects, StoragePool, log, clock),
    leases: new Informer(objects, Lease, log, clock),
  }
  const recorder = new EventRecorder(objects, {
    ...{ clock, log, host: hostName },
    component: 'plasmavmc-leader',
  })
  const placement = runPlacement(
    {
      ...{ objects, ...copies, clock, log },
      tell: (vm, happening) => recorder.record(VirtualMachine, vm, happening),
    },
    signal,
  )
  await Promise.all([placement, ...Object.values(copies).map((copy) => copy.run(signal))])
}
