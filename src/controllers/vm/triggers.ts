import { filter, interval, map, merge, mergeMap, Observable } from 'rxjs'
import type { Disks, MachineChange, Machines, ProcessExit, Processes } from '../../host/ports.ts'
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

export interface TriggerDeps {
  readonly vms: Informer<VirtualMachine>
  readonly machines: Machines
  readonly processes: Processes
  readonly disks: Disks
  readonly keyOfUid: (uid: string) => string | undefined
  readonly resyncMs: number
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
  const resync$ = interval(deps.resyncMs).pipe(mergeMap(() => vms.list().map((vm) => vm.metadata.uid ?? '')))
  const byUid$ = merge(machines$, exits$, disks$, resync$).pipe(
    map(keyOfUid),
    filter((key) => key !== undefined),
  )
  return merge(changed$, byUid$)
}
