import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { Config } from './config.ts'
import { census } from './controllers/census/index.ts'
import { reconcileHost } from './controllers/host/index.ts'
import { reconcilePools } from './controllers/host/pools.ts'
import { companyOn } from './controllers/placement/company.ts'
import { refusal } from './controllers/placement/fit.ts'
import { FirstLook, runVmController } from './controllers/vm/start.ts'
import { detectAccelerator } from './host/accelerator.ts'
import { HostDisks } from './host/disks.ts'
import { QemuBinary } from './host/host-facts.ts'
import { QmpMachines } from './host/machines.ts'
import { vmPaths } from './host/paths.ts'
import { lookAtPool } from './host/pools.ts'
import { HostProcesses } from './host/processes.ts'
import { runFolders } from './host/run-folder.ts'
import { specHash } from './host/spec-hash.ts'
import { systemClock } from './lib/clock.ts'
import { messageOf, PlasmaError } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import type { Meter } from './lib/measures.ts'
import { localDisks } from './resources/disk-reach.ts'
import { Host, StoragePool } from './resources/kinds.ts'
import { bytesOf } from './resources/quantity.ts'
import { VirtualMachine } from './resources/vm.ts'
import { runController } from './runtime/controller.ts'
import { Informer, keyOf } from './runtime/informer.ts'
import { WorkQueue } from './runtime/queue.ts'
import { expireEvents } from './store/event-expiry.ts'
import { EventRecorder } from './store/events.ts'
import type { ObjectStore, Ref } from './store/objects.ts'
import { leaseTerms } from './wire-guard-settings.ts'
import { startGuard } from './wire-guard-watch.ts'
import { thisHost, watchOwnHost } from './wire-host.ts'
import { measureLease } from './wire-metrics.ts'

export interface Agent {
  readonly ready: () => readonly { readonly name: string; readonly ok: boolean; readonly message?: string }[]
  /** Path of a machine's console socket. */
  readonly consoleOf: (ref: Ref) => Promise<string>
  /** Path of its VNC socket, which is there where it has VNC. */
  readonly vncOf: (ref: Ref) => Promise<string>
  readonly logOf: (ref: Ref, bytes: number) => Promise<string>
  /** Rejects when a loop ended by itself. */
  readonly ended: Promise<never>
  /** Resolves when every loop has ended after the signal. */
  readonly stopped: Promise<unknown>
}

const hostEveryMs = 10_000
const clock = systemClock

/** The part that owns this host's QEMUs: informers, the machine controller, the host's own object. */
export async function startAgent(
  config: Config,
  objects: ObjectStore,
  log: Log,
  signal: AbortSignal,
  meter: Meter,
): Promise<Agent> {
  const { runDir, dataDir, hostName } = config
  const probe = { qemuBinary: config.qemu, cacheDir: runDir }
  const accelerator = config.accelerator === 'auto' ? await detectAccelerator(probe) : config.accelerator
  const processes = new HostProcesses({
    runDir,
    hostName,
    accelerator,
    clock,
    log,
    ...(config.qemu && { qemuBinary: config.qemu }),
  })
  const machines = new QmpMachines({ runDir, clock, log, meter })
  const vms = new Informer(objects, VirtualMachine, log)
  const pools = new Informer(objects, StoragePool, log)
  const disks = new HostDisks({
    imageDir: join(dataDir, 'images'),
    dataDir,
    pools: () => pools.list().map(poolOf),
    clock,
    log,
  })
  const source = { component: 'plasmavmc-agent', host: hostName }
  const recorder = new EventRecorder(objects, { clock, ...source, log, meter })
  const qemu = new QemuBinary(config.qemu)
  const host = await thisHost({ config, objects, accelerator, qemu, log }, signal)
  // Now that the name is this host's own, and with it the lease.
  const guard = startGuard(config, log.child({ part: 'guard' }), signal)
  const { tenure } = guard
  const alone = tenure().state === 'single'
  if (!alone) measureLease(guard.lease, leaseTerms(config).deadlineMs, meter)
  const own = alone ? await ownHost(objects, hostName, log, signal) : undefined

  // Before any machine is looked at: where a disk lies is not known without the pools.
  const poolsLoop = pools.run(signal)
  await Promise.race([pools.whenSynced(), poolsLoop])
  const firstLook = new FirstLook()
  const isOwn = (vm: VirtualMachine) => alone || vm.status?.hostName === hostName
  void vms.whenSynced().then(() => firstLook.expect(vms.list().filter(isOwn).map(keyOf)))
  vms.onChange((key, vm) => {
    // It went before it was looked at.
    if (!vm || !isOwn(vm)) firstLook.seen(key)
  })
  const company = companyOn(hostName, vms)
  // In a cluster the leader does that.
  if (alone) census({ vms, clock, meter })
  const vmLoop = runVmController(
    {
      ...{
        hostName,
        hostLabels: () => ({ ...own?.host()?.metadata.labels, 'kubernetes.io/hostname': hostName }),
        objects,
        vms,
        processes,
        machines,
        disks,
      },
      ...{ specHash, newId: randomUUID, clock, log, meter, tenure },
      refusal: (vm) => {
        const host = own?.host()
        return host && refusal(vm, host, company)
      },
      ...(own && { onOpened: own.onChange }),
      localDisks: (vm) => localDisks(vm, pools.list()),
      runFolders: () => runFolders(runDir),
      onPass: (key) => firstLook.seen(key),
      tell: (vm, happening) => recorder.record(VirtualMachine, vm, happening),
    },
    signal,
  )
  const hostQueue = new WorkQueue(clock)
  const taken = Promise.withResolvers<void>()
  let orphans = 0
  vms.onChange((_key, vm) => {
    // A machine that went may leave an orphan; a new one may have adopted one.
    if (!vm || (orphans > 0 && vm.status === undefined)) hostQueue.add(hostName)
  })
  pools.onChange((_key, pool) => {
    if (pool && !pool.status) hostQueue.add(hostName)
  })
  const hostLoop = runController(
    {
      ...{ name: 'host', queue: hostQueue, workers: 1, passTimeoutMs: 30_000, clock, log, meter },
      reconcile: async () => {
        const leased = alone ? {} : { tenure, news: guard.news, fencing: config.fencing }
        const deps = { hostName, runDir, objects, processes, vms, clock, log, ...host, ...leased }
        orphans = await reconcileHost(deps).catch((error: unknown) => {
          if (error instanceof PlasmaError && error.code === 'HostNameTaken') taken.reject(error)
          throw error
        })
        await reconcilePools({ objects, pools: () => pools.list(), look: lookAtPool, clock })
        return { next: 'wait', ms: hostEveryMs }
      },
    },
    signal,
  )
  const informers = [vms.run(signal), poolsLoop]
  void vms.whenSynced().then(() => hostQueue.add(hostName))
  const loops = [vmLoop, hostLoop, ...informers, ...(own ? [own.loop] : [])]
  if (!alone) {
    const hosts = new Informer(objects, Host, log)
    watchOwnHost({ hostName, hosts, guard }, () => hostQueue.add(hostName))
    loops.push(hosts.run(signal))
  }
  if (alone) loops.push(expireEvents({ objects, clock, log }, signal))
  const stopped = Promise.allSettled([...loops, guard.stopped]).then(() =>
    Promise.all([machines.close(), disks.close()]),
  )

  const uidOf = async (ref: Ref) => (await objects.get(VirtualMachine, ref)).metadata.uid ?? ''
  return {
    ready: () => [
      {
        name: 'machines',
        ok: vms.synced && firstLook.left === 0,
        message: `${firstLook.left} still to be looked at`,
      },
      { name: 'pools', ok: pools.synced },
    ],
    consoleOf: async (ref) => vmPaths(runDir, await uidOf(ref)).console,
    vncOf: async (ref) => vmPaths(runDir, await uidOf(ref)).vnc,
    logOf: async (ref, bytes) => processes.log(await uidOf(ref), bytes),
    ended: endedBy([...loops, taken.promise], signal, log),
    stopped,
  }
}

function poolOf(pool: StoragePool) {
  const { path, capacity, shared } = pool.spec
  return {
    ...{ name: pool.metadata.name, path, shared },
    ...(capacity !== undefined && { capacity: bytesOf(capacity) }),
  }
}

/** The object of a host that places machines on itself: whether it is cordoned is asked of a copy. */
async function ownHost(objects: ObjectStore, hostName: string, log: Log, signal: AbortSignal) {
  const hosts = new Informer(objects, Host, log)
  const loop = hosts.run(signal)
  await Promise.race([hosts.whenSynced(), loop])
  const host = () => hosts.get(hostName)
  // Not its reports: what was written of it by people.
  const written = () => JSON.stringify([host()?.metadata.generation, host()?.metadata.labels])
  const onChange = (listener: () => void) => {
    let before = written()
    return hosts.onChange(() => {
      const now = written()
      if (now !== before) listener()
      before = now
    })
  }
  return { host, loop, onChange }
}

/** A loop that ends before it is told to is a bug or a broken store: the process ends, QEMUs live on, a supervisor restarts it. */
function endedBy(loops: readonly Promise<unknown>[], signal: AbortSignal, log: Log): Promise<never> {
  return new Promise((_, reject) => {
    for (const loop of loops) {
      loop.then(
        () => {
          if (!signal.aborted) reject(new Error('a background loop ended'))
        },
        (error: unknown) => {
          log.error('a background loop failed', { message: messageOf(error) })
          reject(error)
        },
      )
    }
  })
}
