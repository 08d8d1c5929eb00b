import { reconcileHost } from '../controllers/host/index.ts'
import { runVmController } from '../controllers/vm/start.ts'
import { specHash } from '../host/spec-hash.ts'
import { messageOf } from '../lib/errors.ts'
import { StoragePool } from '../resources/kinds.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { runController } from '../runtime/controller.ts'
import { Informer } from '../runtime/informer.ts'
import { WorkQueue } from '../runtime/queue.ts'
import { KvObjects } from '../store/kv-objects.ts'
import { runLeader } from '../wire-leader.ts'
import { runTerm } from '../wire-term.ts'
import type { SimHost } from './host.ts'
import { SimDisks, SimMachines, SimProcesses } from './host-ports.ts'
import type { World } from './world.ts'

const hostEveryMs = 10_000
/** How soon a supervisor starts an agent again that ended by itself, ms. */
const restartMs = 1_000

/** Starts the server of a host: what `serve` starts, with the world in place of the machine that it runs on. */
export function startAgent(host: SimHost, world: World): void {
  const process = host.process('agent')
  const { clock } = process
  const { timeline, store } = world
  const log = world.logOf(process)
  const random = world.random.fork(`${process.name} at ${timeline.now}`)
  const newUid = () => random.uuid()
  const kv = store.client(host.name, process)
  const objects = new KvObjects(kv, { clock, newUid })
  const processes = new SimProcesses(host, process, timeline, 'agent')
  const machines = new SimMachines(host, process, timeline)
  const vms = new Informer(objects, VirtualMachine, log, clock)
  const pools = new Informer(objects, StoragePool, log, clock)
  const disks = new SimDisks(host, process, timeline, world.disks, () => pools.list())
  const { signal } = new AbortController()
  const hostName = host.name
  const ended = (error?: unknown) => {
    if (!process.alive) return
    world.tell(`${process.name} ended: ${error === undefined ? 'a loop is over' : messageOf(error)}`)
    process.kill()
    timeline.after(restartMs, () => {
      if (host.on && host.agent === process) world.parts.agent(host, world)
    })
  }
  const loop = (running: Promise<unknown>) => void running.then(() => ended(), ended)
  const poolsLoop = pools.run(signal)
  loop(poolsLoop)
  void pools.whenSynced().then(() => {
    loop(
      runVmController(
        {
          ...{ hostName, hostLabels: () => host.labels, objects, vms, processes, machines, disks },
          ...{ specHash, newId: newUid, clock, log },
          tell: (vm, { reason, message }) =>
            world.tell(`${host.name}: ${vm.metadata.name} ${reason}: ${message}`),
        },
        signal,
      ),
    )
    const hostQueue = new WorkQueue(clock)
    const facts = async () => ({
      ...{
        cpus: host.cpus,
        memory: host.memory,
        accelerator: 'tcg',
        qemuVersion: '7.2.0',
        agentVersion: '1',
      },
      ...{ addresses: [], capabilities: [] },
    })
    loop(
      runController(
        {
          ...{ name: 'host', queue: hostQueue, workers: 1, passTimeoutMs: 30_000, clock, log },
          reconcile: async () => {
            await reconcileHost({
              ...{ hostName, runDir: host.runDir, objects, processes, vms, facts, clock, log },
            })
            return { next: 'wait', ms: hostEveryMs }
          },
        },
        signal,
      ),
    )
    void vms.whenSynced().then(() => hostQueue.add(hostName))
    loop(vms.run(signal))
    loop(
      runLeader(
        {
          config: { hostName },
          kv,
          objects,
          log,
          clock,
          newUid,
          parts: [(term) => runTerm(term, { hostName, log, clock })],
        },
        signal,
      ),
    )
  })
}
