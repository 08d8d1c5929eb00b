import type { VirtualMachine } from '../../resources/vm.ts'
import { keyOf } from '../../runtime/informer.ts'
import type { Observed } from './types.ts'

function writablePaths(vm: VirtualMachine): readonly { readonly path: string; readonly field: string }[] {
  return vm.spec.disks.flatMap((disk, index) =>
    disk.path !== undefined && !disk.readOnly
      ? [{ path: disk.path, field: `spec.disks[${index}].path` }]
      : [],
  )
}

/** The older machine keeps a disk that two claim; the key breaks a tie. */
function olderFirst(a: VirtualMachine, b: VirtualMachine): number {
  const [x = '', y = ''] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp]
  return x.localeCompare(y) || keyOf(a).localeCompare(keyOf(b))
}

/** A machine that has an earlier or stronger claim to one of `vm`'s writable disks: it runs with it, or is older. */
export function diskClaimOf(vm: VirtualMachine, all: () => readonly VirtualMachine[]): Observed['diskClaim'] {
  const mine = writablePaths(vm)
  if (mine.length === 0) return undefined
  for (const other of all()) {
    if (other.metadata.uid === vm.metadata.uid) continue
    const theirs = writablePaths(other)
    const both = mine.find(({ path }) => theirs.some((claim) => claim.path === path))
    if (both && (other.status?.process || olderFirst(other, vm) < 0)) return { by: keyOf(other), ...both }
  }
  return undefined
}
