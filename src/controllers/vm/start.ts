import type { Subscription } from 'rxjs'
import { lateWrites } from '../../host/late-writes.ts'
import type { Disks, Machines, Processes, Tenure } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import { withDeadline } from '../../lib/deadline.ts'
import type { Log } from '../../lib/log.ts'
import { type Meter, unmetered } from '../../lib/measures.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { runController } from '../../runtime/controller.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { claimAfter, diskClaimOf } from './claims.ts'
import { hear, heardOf } from './heard.ts'
import { reconcileVm, type VmControllerDeps } from './index.ts'
import { Inventory } from './inventory.ts'
import { Memories } from './memory.ts'
import { concerns } from './strays.ts'
import { leftKeys, strayKeys } from './sweep.ts'
import { type TriggerDeps, vmTriggers } from './triggers.ts'

export interface VmControllerOptions {
  readonly hostName: string
  readonly hostLabels: () => Readonly<Record<string, string>>
  readonly objects: ObjectStore
  readonly vms: Informer<VirtualMachine>
  readonly processes: Processes
  readonly machines: Machines
  readonly disks: Disks
  /** Whether guests may be started here; `single` unless given. It stays so, or never is. */
  readonly tenure?: () => Tenure
  /** As in `ObserveDeps`; nothing is refused unless given. */
  readonly refusal?: VmControllerDeps['refusal']
  /** As in `TriggerDeps`. */
  readonly onOpened?: TriggerDeps['onOpened']
  /** As in `ObserveDeps`; none unless given. */
  readonly localDisks?: VmControllerDeps['localDisks']
  /** As in `ObserveDeps`; what this host's kernel says unless given. */
  readonly lateWrites?: VmControllerDeps['lateWrites']
  /** Uids that have a run directory here: some of them may have gone to other hosts while no agent ran. */
  readonly runFolders?: () => Promise<readonly string[]>
  readonly specHash: (spec: VirtualMachine['spec']) => string
  readonly tell: VmControllerDeps['tell']
  readonly newId: () => string
  readonly clock: Clock
  readonly log: Log
  /** Measures nothing unless given. */
  readonly meter?: Meter
  readonly onPass?: (key: string, ms: number, failed: boolean) => void
  /** Every machine is looked at this often even if nothing is heard of it. */
  readonly resyncMs?: number
}

/** More than a host's cores: passes mostly wait for QMP, and a machine that hangs must not hold up the others. */
const workers = 32
const passTimeoutMs = 60_000
const defaultResyncMs = 10_000
const strayScanMaxAgeMs = 1_000

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

/** Resolves when the first list has arrived, or the signal is aborted. */
function synced(vms: Informer<VirtualMachine>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (signal.aborted) resolve()
    void vms.whenSynced().then(resolve)
  })
}

/** What a host of a cluster has to look for: QEMUs and leftovers of machines that are other hosts'. */
function clusterOf(options: VmControllerOptions, deps: VmControllerDeps, inventory: Inventory) {
  const { hostName, vms, processes } = options
  const { memories } = deps
  const byUid = uidIndex(vms)
  const vmOfUid = (uid: string) => {
    const key = byUid(uid)
    const vm = key === undefined ? undefined : vms.get(key)
    return key !== undefined && vm?.metadata.uid === uid ? { key, vm } : undefined
  }
  const sweep = { hostName, processes, inventory, memories, vmOfUid }
  return {
    concerns: (vm: VirtualMachine) => concerns(vm, { hostName, memories, inventory }),
    strays: () => strayKeys(sweep, strayScanMaxAgeMs),
    tenure: deps.tenure,
    /** Before anything is started here: stops what runs here of other hosts' machines. Never rejects. */
    first: async (signal: AbortSignal): Promise<readonly string[]> => {
      await synced(vms, signal)
      if (signal.aborted) return []
      const keys = new Set(await strayKeys(sweep, 0))
      for (const key of leftKeys((await options.runFolders?.()) ?? [], sweep)) keys.add(key)
      return [...keys]
    },
  }
}

/** Runs the controller of this host's machines until the signal is aborted. Start it before the informer. */
export async function runVmController(options: VmControllerOptions, signal: AbortSignal): Promise<void> {
  const { vms, processes, machines, disks, clock, log, meter = unmetered } = options
  const memories = new Memories()
  const inventory = new Inventory(processes, clock)
  const deps: VmControllerDeps = {
    refusal: () => undefined,
    localDisks: () => [],
    tenure: () => ({ state: 'single' }),
    lateWrites,
    ...options,
    meter,
    memories,
    inventory,
    diskClaim: (vm) => diskClaimOf(vm, () => vms.list()),
    claimAfter: (vm, launchId) => claimAfter(vm, launchId, vms, clock),
  }
  const queue = new WorkQueue(clock)
  const keyOfUid = uidIndex(vms)
  const subscriptions: Subscription[] = []
  // Of what was given up nothing more is kept.
  const stopExits = processes.onExit((exit) => {
    if (memories.has(exit.uid)) memories.of(exit.uid).exit = exit
  })
  const stopHearing = machines.onChange((change) => {
    const heard = change.type === 'event' ? heardOf(change.event, clock.now()) : undefined
    if (heard && memories.has(change.uid)) hear(memories.of(change.uid), heard, clock.elapsed())
  })
  const cluster = deps.tenure().state === 'single' ? undefined : clusterOf(options, deps, inventory)
  const resyncMs = options.resyncMs ?? defaultResyncMs
  const triggers$ = vmTriggers({
    ...{ vms, machines, processes, disks, keyOfUid, clock, resyncMs, log },
    ...(cluster && { cluster }),
    ...(options.onOpened && { onOpened: options.onOpened }),
  })
  subscriptions.push(triggers$.subscribe((key) => queue.add(key)))
  const reconcile = (key: string, passSignal: AbortSignal) => reconcileVm(key, deps, passSignal)
  try {
    if (cluster) await stopStraysFirst(cluster, reconcile, options, signal)
    await runController(
      {
        ...{ name: 'vm', queue, reconcile, workers, passTimeoutMs, clock, log, meter },
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

/** One try each; what can't be judged now is found again by the resync. */
async function stopStraysFirst(
  cluster: ReturnType<typeof clusterOf>,
  reconcile: (key: string, signal: AbortSignal) => Promise<unknown>,
  { clock, log }: VmControllerOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    const keys = await cluster.first(signal)
    const look = (key: string) =>
      withDeadline(passTimeoutMs, `looking at ${key}`, (one) => reconcile(key, one), { signal, clock })
    const looks = await Promise.allSettled(keys.map(look))
    for (const [i, one] of looks.entries())
      if (one.status === 'rejected') log.warn('a stray was not judged', { key: keys[i], err: one.reason })
  } catch (error) {
    log.warn('strays could not be looked for', { err: error })
  }
}
