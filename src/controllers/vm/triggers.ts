import { EMPTY, filter, map, merge, mergeMap, Observable } from 'rxjs'
import type { Disks, MachineChange, Machines, ProcessExit, Processes, Tenure } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'

/** Events that say nothing a status shows, or that our own commands cause. */
const ignored = new Set([
  'POWERDOWN',
  'RTC_CHANGE',
  'BALLOON_CHANGE',
  'NIC_RX_FILTER_CHANGED',
  'VSERPORT_CHANGE',
  'JOB_STATUS_CHANGE',
])

const slowResync = 30
/** How soon a lease that is held again, or no longer, is noticed. */
const tenureEveryMs = 1_000

/** What there is to watch where other hosts share the store. */
export interface ClusterTriggers {
  /** Whether a machine, as the informer has it, may have something to do with this host. */
  readonly concerns: (vm: VirtualMachine) => boolean
  /** Keys of machines that are not this host's and have a QEMU here. */
  readonly strays: () => Promise<readonly string[]>
  readonly tenure: () => Tenure
}

export interface TriggerDeps {
  readonly vms: Pick<Informer<VirtualMachine>, 'list' | 'onChange'>
  readonly machines: Pick<Machines, 'onChange'>
  readonly processes: Pick<Processes, 'onExit'>
  readonly disks: Pick<Disks, 'onChange'>
  readonly keyOfUid: (uid: string) => string | undefined
  /** Machines with a process are looked at this often: a QEMU that stops answering tells nobody. */
  readonly resyncMs: number
  readonly clock: Clock
  readonly log: Log
  /** Absent where the store is this host's own. */
  readonly cluster?: ClusterTriggers
  /** Tells when this host may take machines that it refused. */
  readonly onOpened?: (listener: () => void) => () => void
}

/** rxjs' own `interval` has no clock but the system's. */
function every(ms: number, clock: Clock): Observable<void> {
  return new Observable((subscriber) => {
    let cancel = () => {}
    const wait = () => {
      cancel = clock.after(ms, () => {
        wait()
        subscriber.next()
      })
    }
    wait()
    return () => cancel()
  })
}

function listen<T>(subscribe: (listener: (value: T) => void) => () => void): Observable<T> {
  return new Observable((subscriber) => subscribe((value) => subscriber.next(value)))
}

/** Emits when the lease is held again, or no longer, or under another epoch. */
function tenureChanges(tenure: () => Tenure, clock: Clock): Observable<void> {
  const wordOf = (one: Tenure) => (one.state === 'held' ? `held ${one.epoch}` : one.state)
  let before = wordOf(tenure())
  return every(tenureEveryMs, clock).pipe(
    filter(() => {
      const now = wordOf(tenure())
      const changed = now !== before
      before = now
      return changed
    }),
  )
}

/** Machines that nobody has taken up yet. */
function openedTriggers({ vms, onOpened }: TriggerDeps): Observable<string> {
  if (!onOpened) return EMPTY
  return listen<void>(onOpened).pipe(
    mergeMap(() => vms.list().filter((vm) => vm.status?.hostName === undefined)),
    map(keyOf),
  )
}

function strayTriggers({ cluster, resyncMs, clock, log }: TriggerDeps): Observable<string> {
  if (!cluster) return EMPTY
  const look = () =>
    cluster.strays().catch((error: unknown): readonly string[] => {
      log.warn('strays could not be looked for', { err: error })
      return []
    })
  return every(resyncMs, clock).pipe(
    mergeMap(look),
    mergeMap((keys) => keys),
  )
}

/** Every key that should be looked at again, from whatever source. Decides nothing. */
export function vmTriggers(deps: TriggerDeps): Observable<string> {
  const { vms, machines, processes, disks, keyOfUid, cluster } = deps
  const concerns = (vm: VirtualMachine | undefined) => !cluster || !vm || cluster.concerns(vm)
  const own = () => vms.list().filter(concerns)
  const changed$ = new Observable<string>((subscriber) =>
    vms.onChange((key, vm) => {
      if (concerns(vm)) subscriber.next(key)
    }),
  )
  const machines$ = listen<MachineChange>((listener) => machines.onChange(listener)).pipe(
    filter((change) => change.type === 'closed' || !ignored.has(change.event.event)),
    map((change) => change.uid),
  )
  const exits$ = listen<ProcessExit>((listener) => processes.onExit(listener)).pipe(map((exit) => exit.uid))
  const disks$ = listen<string>((listener) => disks.onChange(listener))
  const uidOf = (vm: VirtualMachine) => vm.metadata.uid ?? ''
  const alive$ = every(deps.resyncMs, deps.clock).pipe(
    mergeMap(() => own().filter((vm) => vm.status?.process !== undefined)),
    map(uidOf),
  )
  // The rest can only change by what is told of it; looking at all covers a loss nobody thought of.
  const all$ = every(deps.resyncMs * slowResync, deps.clock).pipe(mergeMap(own), map(uidOf))
  const leased$ = cluster ? tenureChanges(cluster.tenure, deps.clock).pipe(mergeMap(own), map(uidOf)) : EMPTY
  const byUid$ = merge(machines$, exits$, disks$, alive$, all$, leased$).pipe(
    map(keyOfUid),
    filter((key) => key !== undefined),
  )
  return merge(changed$, byUid$, openedTriggers(deps), strayTriggers(deps))
}
