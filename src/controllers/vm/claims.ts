import type { Clock } from '../../lib/clock.ts'
import { withDeadline } from '../../lib/deadline.ts'
import { PlasmaError } from '../../lib/errors.ts'
import { writableExports } from '../../resources/nbd.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { mayRun } from '../../resources/vm-power.ts'
import { type Informer, keyOf } from '../../runtime/informer.ts'
import type { Observed } from './types.ts'

/** What a machine writes to and no other may: a path, or an export. The two never look alike: a path begins with a slash. */
interface Claim {
  readonly path: string
  readonly field: string
}

function declaredClaims({ spec }: VirtualMachine): readonly Claim[] {
  const paths = spec.disks.flatMap((disk, index) =>
    disk.path !== undefined && !disk.readOnly
      ? [{ path: disk.path, field: `spec.disks[${index}].path` }]
      : [],
  )
  return [...paths, ...writableExports(spec.disks).map(({ key, field }) => ({ path: key, field }))]
}

/**
 * What a machine has whatever else is declared by now: a spec that changes under a running QEMU takes nothing from it,
 * and exports have no locks that would tell.
 */
function heldExports(vm: VirtualMachine): readonly string[] {
  return mayRun(vm) ? (vm.status?.exports ?? []) : []
}

/** The older machine keeps a disk that two claim; the key breaks a tie. */
function olderFirst(a: VirtualMachine, b: VirtualMachine): number {
  const [x = '', y = ''] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp]
  return x.localeCompare(y) || keyOf(a).localeCompare(keyOf(b))
}

/** A machine that has an earlier or stronger claim to one of `vm`'s writable disks: it runs with it, or is older. */
export function diskClaimOf(vm: VirtualMachine, all: () => readonly VirtualMachine[]): Observed['diskClaim'] {
  const mine = declaredClaims(vm)
  if (mine.length === 0) return undefined
  for (const other of all()) {
    if (other.metadata.uid === vm.metadata.uid) continue
    const held = heldExports(other)
    const stronger = mayRun(other) || olderFirst(other, vm) < 0
    const theirs = [...held, ...(stronger ? declaredClaims(other).map(({ path }) => path) : [])]
    const both = mine.find(({ path }) => theirs.includes(path))
    if (both) return { by: keyOf(other), ...both }
  }
  return undefined
}

const caughtUpMs = 15_000

/**
 * As `diskClaimOf`, by a copy that shows the launch of this machine: a watch tells of all machines in the order in which
 * they were written, so what others recorded before it is in the copy too.
 * @throws PlasmaError `ClaimsUnknown` where the copy does not get that far in time
 */
export async function claimAfter(
  vm: VirtualMachine,
  launchId: string,
  vms: Pick<Informer<VirtualMachine>, 'get' | 'list' | 'onChange'>,
  clock: Clock,
): Promise<Observed['diskClaim']> {
  const key = keyOf(vm)
  const isThere = () => vms.get(key)?.status?.launch?.id === launchId
  const caughtUp = (signal: AbortSignal) =>
    new Promise<void>((resolve) => {
      const stop = vms.onChange(() => {
        if (isThere()) end()
      })
      const end = () => {
        stop()
        resolve()
      }
      signal.addEventListener('abort', end, { once: true })
      if (isThere()) end()
    })
  await withDeadline(caughtUpMs, 'the watch', caughtUp, { clock }).catch((error: unknown) => {
    const words = 'what other machines are recorded to run with could not be read in time'
    throw new PlasmaError('ClaimsUnknown', words, { cause: error })
  })
  return diskClaimOf(vm, () => vms.list())
}
