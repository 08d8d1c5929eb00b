import type { QemuProcess } from '../../host/ports.ts'
import { homeOf } from '../../resources/adopted.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore, Ref } from '../../store/objects.ts'
import type { VmControllerDeps } from './index.ts'
import { evidenceOf, isOurs, strayWords } from './strays.ts'

/** How old the look at this host may be that finds nothing of a machine of which nothing is remembered, ms. */
const scanMaxAgeMs = 10_000
const goneRecheckMs = 100

/** The machine, read now; undefined where it is gone. */
export async function readVm(objects: ObjectStore, ref: Ref): Promise<VirtualMachine | undefined> {
  try {
    return await objects.get(VirtualMachine, ref)
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

/**
 * A pass over a machine that is not placed on this host: a QEMU of it that runs here is stopped at once, and what is left
 * of it here, but for disks, is removed.
 * @returns `own` where its QEMU runs here rightly, or did when it was adopted, and the host is to take it up
 */
export async function passElsewhere(vm: VirtualMachine, deps: VmControllerDeps): Promise<Outcome | 'own'> {
  const uid = vm.metadata.uid ?? ''
  const known = deps.memories.has(uid)
  const seen = await deps.inventory.of(uid, known ? 0 : scanMaxAgeMs)
  const ours = seen.filter((process) => isOurs(process, deps.processes.runDir))
  if (ours.length === 0) {
    // It was adopted, and its QEMU has ended since.
    if (homeOf(vm) === deps.hostName) return 'own'
    if (known) await letGo(uid, deps)
    return { next: 'done' }
  }
  return stopStrays(vm, ours, deps)
}

/** Rule: nothing is killed but on a fresh read of its machine, which throws where it fails. */
async function stopStrays(
  { metadata }: VirtualMachine,
  qemus: readonly QemuProcess[],
  deps: VmControllerDeps,
): Promise<Outcome | 'own'> {
  const { name, namespace, uid = '' } = metadata
  const vm = await readVm(deps.objects, namespace === undefined ? { name } : { namespace, name })
  // Without a machine it is an orphan, which is left alone.
  if (vm?.metadata.uid !== uid) return { next: 'done' }
  const evidence = await evidenceOf(vm, deps.objects)
  const words = qemus.map((qemu) => strayWords(vm, qemu, deps.hostName, evidence))
  if (words.every((why) => why === undefined)) return 'own'
  for (const [i, qemu] of qemus.entries()) if (words[i] !== undefined) stop(vm, qemu, words[i], deps)
  return { next: 'wait', ms: goneRecheckMs }
}

function stop(vm: VirtualMachine, qemu: QemuProcess, why: string, deps: VmControllerDeps): void {
  const { uid, pid, startTime } = qemu
  const result = deps.processes.signal(qemu, uid, 'SIGKILL')
  const memory = deps.memories.of(uid)
  const stray = `${pid}/${startTime}`
  if (memory.stray === stray) return
  memory.stray = stray
  deps.log.warn('stopped a stray QEMU', { uid, pid, why, result })
  const message = `the QEMU with pid ${pid} on host ${deps.hostName} was stopped at once: ${why}`
  deps.tell(vm, { type: 'Warning', reason: 'Stray', message })
}

/**
 * Forgets a machine that is no longer this host's, and removes its run directory and its cgroup; its disks stay.
 * @throws PlasmaError `StillRunning` while a QEMU of it may live here
 */
export async function letGo(
  uid: string,
  {
    machines,
    disks,
    processes,
    memories,
  }: Pick<VmControllerDeps, 'machines' | 'disks' | 'processes' | 'memories'>,
): Promise<void> {
  machines.forget(uid)
  await disks.letGo?.(uid)
  await processes.cleanup(uid)
  memories.forget(uid)
}
