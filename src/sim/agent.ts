import { claimHost } from '../controllers/host/claim.ts'
import { reconcileHost } from '../controllers/host/index.ts'
import { agentLabels } from '../controllers/host/register.ts'
import { LeaseWatch } from '../controllers/hosts/watch.ts'
import { runVmController } from '../controllers/vm/start.ts'
import type { GuardWatch } from '../host/guard-watch.ts'
import type { Tenure } from '../host/ports.ts'
import { specHash } from '../host/spec-hash.ts'
import { messageOf } from '../lib/errors.ts'
import { localDisks } from '../resources/disk-reach.ts'
import { Host, StoragePool } from '../resources/kinds.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { runController } from '../runtime/controller.ts'
import { Informer } from '../runtime/informer.ts'
import { defaultTerms } from '../runtime/lease.ts'
import { WorkQueue } from '../runtime/queue.ts'
import { KvObjects } from '../store/kv-objects.ts'
import { watchOwnHost } from '../wire-host.ts'
import { runLeader } from '../wire-leader.ts'
import { runTerm } from '../wire-term.ts'
import { askVotes, guardWatch, hostIdOf, processesOf } from './guard.ts'
import type { SimHost } from './host.ts'
import { SimDisks, SimMachines } from './host-ports.ts'
import type { World } from './world.ts'

const hostEveryMs = 10_000
/** How soon a supervisor starts an agent again that ended by itself, ms. */
const restartMs = 1_000

/** Starts the server of a host: what `serve` starts, with the world in place of the machine that it runs on. */
export function startAgent(host: SimHost, world: World): void {
  const base = baseOf(host, world)
  const { process, signal, objects, clock, log } = base
  const pools = new Informer(objects, StoragePool, log, clock)
  const ended = (error?: unknown) => {
    if (!process.alive) return
    world.tell(`${process.name} ended: ${error === undefined ? 'a loop is over' : messageOf(error)}`)
    process.kill()
    world.timeline.after(restartMs, () => {
      if (host.on && host.agent === process) world.parts.agent(host, world)
    })
  }
  const loop = (running: Promise<unknown>) => void running.then(() => ended(), ended)
  const watch = guardWatch(host, world, process)
  const start = async () => {
    await claim(base)
    loop(watch.run(signal))
    loop(leader(base))
    loop(pools.run(signal))
    await pools.whenSynced()
    const right = () => watch.tenure()
    const tenure = world.parts.mistakes?.tenure?.(right) ?? right
    for (const running of machines(base, pools, watch, tenure)) loop(running)
  }
  void start().catch(ended)
}

/** Where it can't be asked whose the name is, the server ends, and a supervisor starts it again. */
function claim({ host, clock, hostName, log, objects, signal }: Base): Promise<void> {
  return claimHost({
    ...{ objects, hostName, hostId: hostIdOf(host), bootId: host.bootId, clock, log, signal },
    ...{
      ...{ durationMs: defaultTerms.durationMs, renewMs: defaultTerms.renewMs },
      labels: agentLabels(hostName, { arch: 'amd64', accelerator: 'tcg' }),
    },
  })
}

function baseOf(host: SimHost, world: World) {
  const process = host.process('agent')
  const { clock } = process
  const random = world.random.fork(`${process.name} at ${world.timeline.now}`)
  const newUid = () => random.uuid()
  const kv = world.store.client(host.name, process)
  return {
    ...{ host, world, process, clock, newUid, kv, hostName: host.name },
    log: world.logOf(process),
    objects: new KvObjects(kv, { clock, newUid, reader: world.reader }),
    signal: new AbortController().signal,
  }
}
type Base = ReturnType<typeof baseOf>

/** Contends for leadership, and does what a leader does. */
function leader({
  world,
  process,
  clock,
  newUid,
  kv,
  hostName,
  log,
  objects,
  signal,
}: Base): Promise<unknown> {
  const watch = new LeaseWatch(objects, clock, log)
  const hosts = {
    ...{ watch, votes: askVotes(hostName, world, process) },
    runCommand: ({ command }: { readonly command: readonly string[] }) =>
      world.fence(hostName, process, command[1] ?? ''),
  }
  const parts = [(term: Parameters<typeof runTerm>[0]) => runTerm(term, { hostName, log, clock, hosts })]
  const { reader } = world
  const led = runLeader(
    { config: { hostName }, ...{ kv, objects, log, clock, newUid, reader, parts } },
    signal,
  )
  return Promise.race([led, watch.run(signal)])
}

/** The loops over this host's machines and over the host's own object. */
function* machines(
  base: Base,
  pools: Informer<StoragePool>,
  watch: GuardWatch,
  tenure: () => Tenure,
): Generator<Promise<unknown>> {
  const { host, world, process, clock, newUid, hostName, log, objects, signal } = base
  const { timeline } = world
  const processes = processesOf(host, world, process, 'agent')
  const vms = new Informer(objects, VirtualMachine, log, clock)
  yield runVmController(
    {
      ...{ hostName, hostLabels: () => host.labels, objects, vms, processes, tenure },
      machines: new SimMachines(host, process, timeline),
      disks: new SimDisks(host, process, timeline, world.disks, () => pools.list()),
      localDisks: (vm) => localDisks(vm, pools.list()),
      // The kernel that this runs on is none of the cluster's.
      lateWrites: () => undefined,
      runFolders: async () => [...host.records.keys()],
      ...{ specHash, newId: newUid, clock, log },
      tell: (vm, { reason, message }) => world.tell(`${hostName}: ${vm.metadata.name} ${reason}: ${message}`),
    },
    signal,
  )
  const queue = new WorkQueue(clock)
  const facts = async () => ({
    ...{ cpus: host.cpus, memory: host.memory, accelerator: 'tcg', qemuVersion: '7.2.0', agentVersion: '1' },
    ...{ addresses: [], capabilities: [] },
  })
  const news = () => watch.news()
  const reconcile = async () => {
    await reconcileHost({
      hostName,
      runDir: host.runDir,
      ...{ objects, processes, vms, facts, tenure, news, clock, log },
    })
    return { next: 'wait', ms: hostEveryMs } as const
  }
  yield runController(
    { ...{ name: 'host', queue, workers: 1, passTimeoutMs: 30_000, clock, log }, reconcile },
    signal,
  )
  void vms.whenSynced().then(() => queue.add(hostName))
  const hosts = new Informer(objects, Host, log, clock)
  const guard = { tenure, news, onNews: (listener: () => void) => void watch.onNews(listener) }
  watchOwnHost({ hostName, hosts, guard }, () => queue.add(hostName))
  yield hosts.run(signal)
  yield vms.run(signal)
}
