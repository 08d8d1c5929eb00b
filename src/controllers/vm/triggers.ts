import { filter, map, merge, mergeMap, Observable } from 'rxjs'
import type { Disks, MachineChange, Machines, ProcessExit, Processes } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'

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

export interface TriggerDeps {
  readonly vms: Informer<VirtualMachine>
  readonly machines: Machines
  readonly processes: Processes
  readonly disks: Disks
  readonly keyOfUid: (uid: string) => string | undefined
  /** Machines with a process are looked at this often: a QEMU that stops answering tells nobody. */
  readonly resyncMs: number
  readonly clock: Clock
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

/** Every key that should be looked at again, from whatever source. Decides nothing. */
export function vmTriggers(deps: TriggerDeps): Observable<string> {
  const { vms, machines, processes, disks, keyOfUid } = deps
  const changed$ = new Observable<string>((subscriber) => vms.onChange((key) => subscriber.next(key)))
  const machines$ = listen<MachineChange>((listener) => machines.onChange(listener)).pipe(
    filter((change) => change.type === 'closed' || !ignored.has(change.event.event)),
    map((change) => change.uid),
  )
  const exits$ = listen<ProcessExit>((listener) => processes.onExit(listener)).pipe(map((exit) => exit.uid))
  const disks$ = listen<string>((listener) => disks.onChange(listener))
  const uidOf = (vm: VirtualMachine) => vm.metadata.uid ?? ''
  const alive$ = every(deps.resyncMs, deps.clock).pipe(
    mergeMap(() => vms.list().filter((vm) => vm.status?.process !== undefined)),
    map(uidOf),
  )
  // The rest can only change by what is told of it; looking at all covers a loss nobody thought of.
  const all$ = every(deps.resyncMs * slowResync, deps.clock).pipe(
    mergeMap(() => vms.list()),
    map(uidOf),
  )
  const resync$ = merge(alive$, all$)
  const byUid$ = merge(machines$, exits$, disks$, resync$).pipe(
    map(keyOfUid),
    filter((key) => key !== undefined),
  )
  return merge(changed$, byUid$)
}
