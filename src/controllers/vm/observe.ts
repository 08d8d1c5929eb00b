import type {
  Disks,
  LaunchRecord,
  Machines,
  Processes,
  ProcessIdentity,
  QemuProcess,
  Tenure,
} from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import { messageOf } from '../../lib/errors.ts'
import type { LocalDisk } from '../../resources/disk-reach.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { exponential } from '../../runtime/backoff.ts'
import { askMore } from './ask.ts'
import { mayWriteExports, withOpenExports } from './exports.ts'
import type { Inventory } from './inventory.ts'
import type { Memories, VmMemory } from './memory.ts'
import type { Observed, ProcessFact, Tried } from './types.ts'

export interface ObserveDeps {
  readonly hostName: string
  readonly hostLabels: () => Readonly<Record<string, string>>
  /** Whether guests may be started here now; asked anew each time. */
  readonly tenure: () => Tenure
  /** Why a machine can't be placed on this host, where it is the only one. Pure. */
  readonly refusal: (vm: VirtualMachine) => string | undefined
  /** Disks of a machine that exist and that only its host reaches. */
  readonly localDisks: (vm: VirtualMachine) => readonly LocalDisk[]
  readonly processes: Processes
  readonly machines: Machines
  readonly disks: Disks
  readonly inventory: Inventory
  readonly memories: Memories
  readonly clock: Clock
  readonly specHash: (spec: VirtualMachine['spec']) => string
  /** Another machine that claims one of this one's writable disks, if any. */
  readonly diskClaim: (vm: VirtualMachine) => Observed['diskClaim']
  /** Why what a killed QEMU wrote to exports may arrive later; undefined where it can't. */
  readonly lateWrites: () => string | undefined
}

/** A scan this fresh is good enough to say a machine that was not known to run does not. */
const scanMaxAgeMs = 250
/** How late a second QEMU of a machine that is known to run may be noticed. */
const twinScanMaxAgeMs = 10_000
const diskRetryBaseMs = 5_000
const diskRetryCapMs = 60_000

/** Looks at everything a pass needs. The only reads; changes nothing but the agent's own memory. */
export async function observe(vm: VirtualMachine, deps: ObserveDeps): Promise<Observed> {
  const uid = vm.metadata.uid ?? ''
  const memory = deps.memories.of(uid)
  const [process, looked] = await Promise.all([observeProcess(vm, uid, memory, deps), deps.disks.observe(vm)])
  const disks = withOpenExports(looked, vm, process)
  const diskClaim = deps.diskClaim(vm)
  const tenure = deps.tenure()
  const alone = tenure.state === 'single'
  const refusal = alone && vm.status?.hostName === undefined ? deps.refusal(vm) : undefined
  const late = !alone && mayWriteExports(vm) ? deps.lateWrites() : undefined
  // Of an earlier launch it says nothing of this one.
  const launchId = vm.status?.process?.launchId ?? vm.status?.launch?.id
  const exit = memory.exit?.launchId === launchId ? memory.exit : undefined
  return {
    bootId: deps.processes.bootId,
    hostName: deps.hostName,
    hostLabels: deps.hostLabels(),
    tenure,
    ...(refusal !== undefined && { refusal }),
    localDisks: alone ? [] : deps.localDisks(vm),
    process,
    live: liveTries(vm, memory, deps.clock),
    heard: memory.heard ?? [],
    launching: memory.launching ?? false,
    ...(exit && { exit }),
    ...(memory.launchError && { launchError: memory.launchError }),
    disks,
    ...(diskClaim && { diskClaim }),
    ...(late !== undefined && { lateWrites: late }),
    diskRetryInMs: diskRetryIn(vm, disks, memory, deps.clock),
    stopElapsedMs: elapsedSince('stop', vm.status?.stop?.at, memory, deps.clock),
    endedElapsedMs: elapsedSince('ended', endOf(vm), memory, deps.clock),
    specHash: deps.specHash(vm.spec),
    disposed: memory.disposed ?? false,
    ...(memory.disposeError !== undefined && { disposeError: memory.disposeError }),
  }
}

/** When the guest of the launch that the status tells of ended, where it has. */
function endOf(vm: VirtualMachine): string | undefined {
  const { lastExit, process } = vm.status ?? {}
  return lastExit && lastExit.launchId === process?.launchId ? lastExit.at : undefined
}

/** Monotonic since first seen; what had passed before this agent's life is taken from the record, never below 0. */
function elapsedSince(
  what: 'stop' | 'ended',
  at: string | undefined,
  memory: VmMemory,
  clock: Clock,
): number {
  if (at === undefined) {
    delete memory[what]
    return 0
  }
  const known = memory[what]
  if (known?.at === at) return known.before + clock.elapsed() - known.since
  const before = Math.max(0, clock.now() - Date.parse(at))
  memory[what] = { at, since: clock.elapsed(), before }
  return before
}

/** A failed preparation is tried again with back-off, at once when the spec has changed since. */
function diskRetryIn(vm: VirtualMachine, disks: Observed['disks'], memory: VmMemory, clock: Clock): number {
  if (disks.every((disk) => disk.state === 'ready')) delete memory.diskRetry
  if (!disks.some((disk) => disk.state === 'failed')) return 0
  const generation = vm.metadata.generation ?? 0
  const before = memory.diskRetry
  if (before && before.generation !== generation) {
    delete memory.diskRetry
    return 0
  }
  if (!before?.waiting) {
    const failures = (before?.failures ?? 0) + 1
    const at = clock.elapsed() + exponential(failures, diskRetryBaseMs, diskRetryCapMs)
    memory.diskRetry = { generation, failures, at, waiting: true }
  }
  return Math.max(0, (memory.diskRetry?.at ?? 0) - clock.elapsed())
}

/** A changed spec is tried at once: what failed may be what was mended. */
function liveTries(vm: VirtualMachine, memory: VmMemory, clock: Clock): Observed['live'] {
  if (memory.live?.generation !== vm.metadata.generation) delete memory.live
  const tries: [string, Tried][] = [...(memory.live?.tried ?? [])].map(([key, { tries, at, error }]) => {
    const retryInMs = Math.max(0, at - clock.elapsed())
    return [key, { tries, retryInMs, done: error === undefined, ...(error !== undefined && { error }) }]
  })
  return Object.fromEntries(tries)
}

async function observeProcess(
  vm: VirtualMachine,
  uid: string,
  memory: VmMemory,
  deps: ObserveDeps,
): Promise<ProcessFact> {
  const known = memory.process?.identity ?? recordedIdentity(vm, deps.processes.bootId)
  if (known && memory.process) {
    const state = deps.processes.inspect(known)
    if (state === 'unknown') return { state: 'unknown', why: `/proc of pid ${known.pid} can't be read` }
    if (state !== 'gone') {
      const twins = await twinsOf(uid, known, deps)
      if (twins.length > 0) return { state: 'duplicate', pids: [known.pid, ...twins] }
      return alive(vm, memory, state === 'stopped', deps)
    }
  }
  // Unknown to this life, or gone: only a scan that missed nothing proves that no other process carries the uid.
  const lostOne = memory.process !== undefined
  const scan = await deps.inventory.scan(lostOne ? 0 : scanMaxAgeMs)
  const found = deps.inventory.in(scan, uid)
  if (found.length > 1) return { state: 'duplicate', pids: found.map((process) => process.pid) }
  const [one] = found
  if (one) {
    const stranger = strangeness(one, deps.processes.runDir)
    return stranger ? { state: 'unknown', why: stranger } : adopt(vm, one, memory, deps)
  }
  if (scan.incomplete) return { state: 'unknown', why: scan.incomplete }
  // A launch under way may fork after this scan began: it will say so itself.
  if (memory.process) deps.machines.forget(uid)
  delete memory.process
  delete memory.silentSince
  return { state: 'absent' }
}

/** Why a QEMU with a machine's uid is not ours to adopt; while it lives the machine is neither started nor touched. */
function strangeness({ pid, launchId, runDir }: QemuProcess, ours: string): string | undefined {
  if (launchId === undefined) return `process ${pid} has this machine's uid and was not started by PlasmaVMC`
  if (runDir === ours) return undefined
  return `process ${pid} has this machine's uid and belongs to the run directory ${runDir ?? 'of another server'}`
}

/** Pids of other live QEMUs with the uid of a machine whose process is known: somebody started one by hand. */
async function twinsOf(uid: string, known: ProcessIdentity, deps: ObserveDeps): Promise<readonly number[]> {
  const found = await deps.inventory.of(uid, twinScanMaxAgeMs)
  const others = found.filter(({ pid, startTime }) => pid !== known.pid || startTime !== known.startTime)
  // The scan may be old; whether each lives is asked now.
  return others.filter((other) => deps.processes.inspect(other) !== 'gone').map(({ pid }) => pid)
}

function recordedIdentity(vm: VirtualMachine, bootId: string): ProcessIdentity | undefined {
  const process = vm.status?.process
  return process?.bootId === bootId ? process : undefined
}

async function adopt(
  vm: VirtualMachine,
  found: QemuProcess,
  memory: VmMemory,
  deps: ObserveDeps,
): Promise<ProcessFact> {
  let record: LaunchRecord | undefined
  try {
    record = await deps.processes.launchRecord(vm.metadata.uid ?? '')
  } catch {
    // An unreadable record only costs details; the process itself is identified by /proc.
  }
  const { pid, startTime, bootId, launchId, state } = found
  memory.process = {
    identity: { pid, startTime, bootId },
    seenAt: deps.clock.elapsed(),
    ...(launchId !== undefined && { launchId }),
    ...(record && { record }),
  }
  delete memory.silentSince
  return alive(vm, memory, state === 'T' || state === 't', deps)
}

async function looseTapsOf({ record, launchId }: NonNullable<VmMemory['process']>, deps: ObserveDeps) {
  if (!record || record.launchId !== launchId) return []
  return (await deps.processes.looseTaps?.(record.manifest)) ?? []
}

async function alive(
  vm: VirtualMachine,
  memory: VmMemory,
  stopped: boolean,
  deps: ObserveDeps,
): Promise<ProcessFact> {
  const process = memory.process
  if (!process) throw new Error('a process is alive that is not known')
  const uid = vm.metadata.uid ?? ''
  const machine = stopped
    ? ({ state: 'unreachable', why: 'timeout', message: 'the process is stopped by a signal' } as const)
    : await deps.machines.status(uid).catch((error: unknown) => {
        return { state: 'unreachable', why: 'error', message: messageOf(error) } as const
      })
  const asked = machine.state === 'answered' ? await askMore(vm, machine.status, memory, deps) : {}
  const looseTaps = machine.state === 'answered' ? await looseTapsOf(process, deps) : []
  const now = deps.clock.elapsed()
  if (machine.state === 'answered') delete memory.silentSince
  else memory.silentSince ??= now
  return {
    state: 'alive',
    identity: process.identity,
    ...(process.launchId !== undefined && { launchId: process.launchId }),
    ...(process.record && { record: process.record }),
    stopped,
    machine,
    ...asked,
    ...(looseTaps.length > 0 && { looseTaps }),
    seenForMs: now - process.seenAt,
    silentForMs: now - (memory.silentSince ?? now),
  }
}
