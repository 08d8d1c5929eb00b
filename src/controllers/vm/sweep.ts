import type { Processes } from '../../host/ports.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Inventory } from './inventory.ts'
import type { Memories } from './memory.ts'
import { isOurs } from './strays.ts'

export interface SweepDeps {
  readonly hostName: string
  readonly processes: Processes
  readonly inventory: Inventory
  readonly memories: Memories
  /** A machine by its uid as the informer has it, with its key. */
  readonly vmOfUid: (uid: string) => { readonly key: string; readonly vm: VirtualMachine } | undefined
}

/** The key of a machine that exists and, by the informer, is not this host's. A pass then judges by the store. */
function keyElsewhere(uid: string, { vmOfUid, hostName }: SweepDeps): readonly string[] {
  const found = vmOfUid(uid)
  return found && found.vm.status?.hostName !== hostName ? [found.key] : []
}

/** Keys of machines that are not this host's and have a QEMU here. */
export async function strayKeys(deps: SweepDeps, maxAgeMs: number): Promise<readonly string[]> {
  const { processes } = await deps.inventory.scan(maxAgeMs)
  const ours = processes.filter((process) => isOurs(process, deps.processes.runDir))
  return ours.flatMap(({ uid }) => keyElsewhere(uid, deps))
}

/**
 * Keys of machines that are not this host's and have a run directory here: they went while no agent ran. That something
 * is left of them is remembered, so that a pass looks for it.
 */
export function leftKeys(folders: readonly string[], deps: SweepDeps): readonly string[] {
  return folders.flatMap((uid) => {
    const keys = keyElsewhere(uid, deps)
    if (keys.length > 0) deps.memories.of(uid)
    return keys
  })
}
