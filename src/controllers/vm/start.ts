import type { Subscription } from 'rxjs'
import type { Disks, Machines, Processes } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { runController } from '../../runtime/controller.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { diskClaimOf } from './claims.ts'
import { hear, heardOf } from './heard.ts'
import { reconcileVm, type VmControllerDeps } from './index.ts'
import { Inventory } from './inventory.ts'
import { Memories } from './memory.ts'
import { vmTriggers } from './triggers.ts'

export interface VmControllerOptions {
  readonly hostName: string
  readonly hostLabels: () => Readonly<Record<string, string>>
  readonly objects: ObjectStore
  readonly vms: Informer<VirtualMachine>
  readonly processes: Processes
  readonly machines: Machines
  readonly disks: Disks
  readonly specHash: (spec: VirtualMachine['spec']) => string
  readonly tell: VmControllerDeps['tell']
  readonly newId: () => string
  readonly clock: Clock
  readonly log: Log
  readonly onPass?: (key: string, ms: number, failed: boolean) => void
  /** Every machine is looked at this often even if nothing is heard of it. */
  readonly resyncMs?: number
}

/** More than a host's cores: passes mostly wait for QMP, and a machine that hangs must not hold up the others. */
const workers = 32
const passTimeoutMs = 60_000
const defaultResyncMs = 10_000

/** Keeps uid to key; a deleted object's last passes still find their key. */
function uidIndex(vms: Informer<VirtualMachine>) {
  const keys = new Map<string, string>()
  const uids = new Map<string, string>()
  vms.onChange((key, vm) => {
    const before = uids.get(key)
    const uid = vm?.metadata.uid
    if (before !== undefined && before !== uid) keys.delete(before)
    if (uid === undefined) uids.delete(key)
    else {
      uids.set(key, uid)
      keys.set(uid, key)
    }
  })
  for (const vm of vms.list()) keys.set(vm.metadata.uid ?? '', keyOf(vm))
  return (uid: string) => keys.get(uid)
}

/** Counts the machines that were there at the start and have not been looked at yet. */
export class FirstLook {
  readonly #waiting = new Set<string>()

  /** Machines still to be looked at. */
  get left(): number {
    return this.#waiting.size
  }

  expect(keys: Iterable<string>): void {
    for (const key of keys) this.#waiting.add(key)
  }

  seen(key: string): void {
    this.#waiting.delete(key)
  }
}

/** Runs the controller of this host's machines until the signal is aborted. Start it before the informer. */
export async function runVmController(options: VmControllerOptions, signal: AbortSignal): Promise<void> {
  const { vms, processes, machines, disks, clock, log } = options
  const memories = new Memories()
  const inventory = new Inventory(processes, clock)
  const deps: VmControllerDeps = {
    ...options,
    memories,
    inventory,
    diskClaim: (vm) => diskClaimOf(vm, () => vms.list()),
  }
  const queue = new WorkQueue(clock)
  const keyOfUid = uidIndex(vms)
  const subscriptions: Subscription[] = []
  const stopExits = processes.onExit((exit) => {
    memories.of(exit.uid).exit = exit
  })
  const stopHearing = machines.onChange((change) => {
    const heard = change.type === 'event' ? heardOf(change.event, clock.now()) : undefined
    if (heard) hear(memories.of(change.uid), heard, clock.elapsed())
  })
  const triggers$ = vmTriggers({
    vms,
    machines,
    processes,
    disks,
    keyOfUid,
    clock,
    resyncMs: options.resyncMs ?? defaultResyncMs,
  })
  subscriptions.push(triggers$.subscribe((key) => queue.add(key)))
  try {
    await runController(
      {
        name: 'vm',
        queue,
        reconcile: (key, passSignal) => reconcileVm(key, deps, passSignal),
        workers,
        passTimeoutMs,
        clock,
        log,
        ...(options.onPass && { onPass: options.onPass }),
      },
      signal,
    )
  } finally {
    stopExits()
    stopHearing()
    for (const subscription of subscriptions) subscription.unsubscribe()
  }
}
