import type { Clock } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import { type Meter, unmetered } from '../../lib/measures.ts'
import type { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { Host, StoragePool } from '../../resources/kinds.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { runController } from '../../runtime/controller.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'
import { defaultTerms, type LeaseTerms } from '../../runtime/lease.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import type { ExecuteDeps } from './execute.ts'
import { type HostsDeps, hostsToDo, reconcileLostHost } from './index.ts'
import { measureHosts } from './measured.ts'
import { LostHosts } from './memory.ts'
import type { World } from './types.ts'
import type { LeaseWatch } from './watch.ts'

export interface HostsOptions extends Pick<ExecuteDeps, 'objects' | 'votes' | 'runCommand' | 'tell'> {
  /** Runs for longer than a term: in every server that may lead. */
  readonly watch: LeaseWatch
  /** Run by the caller. */
  readonly hosts: Informer<Host>
  readonly vms: Informer<VirtualMachine>
  readonly pools: Informer<StoragePool>
  readonly evidence: Informer<FenceEvidence>
  readonly leader: World['leader']
  /** Share of the hosts, in percent, that may look lost at once before nothing is fenced; more than 50 counts as 50. */
  readonly brakePercent?: number
  readonly terms?: LeaseTerms
  readonly clock: Clock
  readonly log: Log
  /** Measures nothing unless given. */
  readonly meter?: Meter
}

const defaultBrakePercent = 50
/** Many more than ever are lost at once: one that waits for its fence command must not hold up another. */
const workers = 32
/** Longer than the longest command may take, twice: off and status. */
const passTimeoutMs = 1_500_000

/** Watches over all hosts, and takes machines from those that are lost, until the signal is aborted. */
export async function runHosts(options: HostsOptions, signal: AbortSignal): Promise<void> {
  const { watch, hosts, vms, pools, evidence, clock, meter = unmetered, terms = defaultTerms } = options
  const log = options.log.child({ part: 'hosts' })
  const learnt = new Map<string, FenceEvidence>()
  const deps: HostsDeps = {
    ...{ objects: options.objects, votes: options.votes, runCommand: options.runCommand, tell: options.tell },
    ...{ leader: options.leader, clock, log, meter, memory: new LostHosts() },
    ...{ durationMs: terms.durationMs, suspectMs: terms.deadlineMs },
    brakePercent: options.brakePercent ?? defaultBrakePercent,
    copies: {
      ...{ hosts: () => hosts.list(), machines: () => vms.list(), pools: () => pools.list() },
      evidence: () => [...new Map([...learnt, ...byKey(evidence)]).values()],
    },
    watched: () => (synced() ? watch.watched : undefined),
    look: () => watch.look(),
    learnt: (one) => learnt.set(keyOf(one), one),
  }
  // Where a copy is not whole yet, what it lacks may only be not there yet.
  const synced = () => [hosts, vms, pools, evidence].every((one) => one.synced)
  const queue = new WorkQueue(clock)
  const stopLooking = watch.onLook(() => {
    for (const host of hostsToDo(deps)) queue.add(host)
  })
  const stopLearning = evidence.onChange((key) => learnt.delete(key))
  const stopMeasuring = measureHosts(() => hosts.list(), meter)
  const reconcile = (host: string, pass: AbortSignal) => reconcileLostHost(host, deps, pass)
  try {
    const limits = { workers, passTimeoutMs }
    await runController({ name: 'hosts', queue, reconcile, ...limits, clock, log, meter }, signal)
  } finally {
    stopLooking()
    stopLearning()
    stopMeasuring()
  }
}

const byKey = (evidence: Informer<FenceEvidence>) => evidence.list().map((one) => [keyOf(one), one] as const)
