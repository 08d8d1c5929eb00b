import type { QemuProcess } from '../../host/ports.ts'
import { homeOf } from '../../resources/adopted.ts'
import { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'
import type { Memories } from './memory.ts'

/**
 * Why a QEMU of this host must not go on; undefined where it may. Pure. Its machine is as it was read right before: on
 * another host, or taken from this one by evidence that is newer than the launch.
 */
export function strayWords(
  vm: VirtualMachine,
  qemu: Pick<QemuProcess, 'epoch'>,
  hostName: string,
  evidence: FenceEvidence | undefined,
): string | undefined {
  const at = vm.status?.hostName
  if (at !== undefined) return at === hostName ? undefined : `the machine is placed on host ${at}`
  const { epoch } = qemu
  if (evidence?.spec.host !== hostName || epoch === undefined || epoch >= evidence.spec.epoch)
    return undefined
  return `the machine was taken from this host by FenceEvidence ${evidence.metadata.name}`
}

/** The evidence by which a machine that has no host was taken from its last one. @throws where it can't be read */
export async function evidenceOf(
  { status }: VirtualMachine,
  objects: ObjectStore,
): Promise<FenceEvidence | undefined> {
  if (status?.evidence === undefined || status.hostName !== undefined) return undefined
  try {
    return await objects.get(FenceEvidence, { name: status.evidence })
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

/** Whether a QEMU bears our mark and belongs to this run directory: no other is ever stopped. */
export function isOurs({ launchId, runDir }: QemuProcess, ours: string): boolean {
  return launchId !== undefined && runDir === ours
}

/** What is known of the machines of this host without asking the store. */
export interface HereDeps {
  readonly hostName: string
  readonly memories: Memories
  readonly inventory: { has(uid: string): boolean }
}

/** Whether a machine, as the informer has it, may have something to do with this host. */
export function concerns(vm: VirtualMachine, { hostName, memories, inventory }: HereDeps): boolean {
  const uid = vm.metadata.uid ?? ''
  const own = vm.status?.hostName === hostName || homeOf(vm) === hostName
  return own || memories.has(uid) || inventory.has(uid)
}
