import type { Tenure } from '../../host/ports.ts'
import { adviceOf, PlasmaError } from '../../lib/errors.ts'
import { VirtualMachine, vmFinalizer } from '../../resources/vm.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { letGo } from './elsewhere.ts'
import { type LiveDeps, noteSpec, takeLiveStep } from './execute-live.ts'
import { requireTenure } from './tenure.ts'
import type { Action, Observed } from './types.ts'

export interface ExecuteDeps extends LiveDeps {
  readonly objects: ObjectStore
  /** Whether guests may be started here now; asked right before one is. */
  readonly tenure: () => Tenure
  /**
   * Another machine that claims one of this one's writable disks, by what stands in the store at least since the launch
   * was recorded there. @throws PlasmaError `ClaimsUnknown` where that can't be told in time
   */
  readonly claimAfter: (vm: VirtualMachine, launchId: string) => Promise<Observed['diskClaim']>
}

/** QEMU sets up its monitor in tens of ms; a host under load may take seconds. */
const powerdownEveryMs = 4_000

/** Does one action. Each is safe to repeat and safe to lose. `vm` carries the resourceVersion just recorded. */
export async function execute(action: Action, vm: VirtualMachine, deps: ExecuteDeps): Promise<void> {
  const uid = vm.metadata.uid ?? ''
  const memory = deps.memories.of(uid)
  deps.log.debug('action', { action: action.do, uid })
  switch (action.do) {
    case 'addFinalizer': {
      const finalizers = [...(vm.metadata.finalizers ?? []), vmFinalizer]
      await deps.objects.update(VirtualMachine, { ...vm, metadata: { ...vm.metadata, finalizers } })
      return
    }
    case 'dropFinalizer': {
      const finalizers = (vm.metadata.finalizers ?? []).filter((name) => name !== vmFinalizer)
      await deps.objects.update(VirtualMachine, { ...vm, metadata: { ...vm.metadata, finalizers } })
      deps.memories.forget(uid)
      return
    }
    case 'prepareDisks':
      if (memory.diskRetry) memory.diskRetry.waiting = false
      return deps.disks.prepare(vm, action.only)
    case 'launch':
      return launch(action.launchId, vm, uid, deps)
    case 'resume':
      requireTenure(deps.tenure(), vm.status?.placementEpoch)
      await deps.machines.execute(uid, 'cont')
      return
    case 'pause':
      await deps.machines.execute(uid, 'stop')
      return
    case 'reset':
      await deps.machines.execute(uid, 'system_reset')
      return
    case 'powerdown': {
      // The event it causes wakes this machine's key again: without a pause that would be a loop.
      const now = deps.clock.elapsed()
      if (memory.powerdownAt !== undefined && now - memory.powerdownAt < powerdownEveryMs) return
      memory.powerdownAt = now
      await deps.machines.execute(uid, 'system_powerdown')
      return
    }
    case 'quit':
      await deps.machines.execute(uid, 'quit')
      return
    case 'kill': {
      const result = deps.processes.signal(action.identity, uid, 'SIGKILL')
      deps.log.warn('killed QEMU', { uid, pid: action.identity.pid, why: action.why, result })
      return
    }
    case 'live':
      return takeLiveStep(action, vm, deps)
    case 'attachTap':
      await deps.processes.attachTap?.(action.tap, action.bridge)
      return
    case 'noteSpec':
      return noteSpec(action, uid, deps)
    case 'dispose':
      deps.machines.forget(uid)
      try {
        await deps.disks.remove(vm)
        await deps.processes.cleanup(uid)
      } catch (error) {
        memory.disposeError = adviceOf(error)
        throw error
      }
      memory.disposed = true
      return
    case 'relinquish':
      return letGo(uid, deps)
    default:
      return action satisfies never
  }
}

/**
 * Exports have no image locks. Each host records its launch first and then looks at what the others have recorded: of two
 * that start machines on one export at one moment, at least one sees the other.
 * @throws PlasmaError `DiskInUse`; what `claimAfter` throws
 */
async function requireClaim(launchId: string, vm: VirtualMachine, deps: ExecuteDeps): Promise<void> {
  if (!vm.status?.exports) return
  const claim = await deps.claimAfter(vm, launchId)
  if (claim)
    throw new PlasmaError('DiskInUse', `${claim.field}: ${claim.path} is a writable disk of ${claim.by} too`)
}

async function launch(launchId: string, vm: VirtualMachine, uid: string, deps: ExecuteDeps): Promise<void> {
  const memory = deps.memories.of(uid)
  memory.launching = true
  delete memory.exit
  delete memory.launchError
  delete memory.process
  deps.machines.forget(uid)
  try {
    await requireClaim(launchId, vm, deps)
    const states = await deps.disks.observe(vm)
    const disks = new Map(
      states.flatMap((disk) => (disk.path === undefined ? [] : [[disk.name, disk.path] as const])),
    )
    const epoch = vm.status?.placementEpoch
    const request = { vm, launchId, epoch: epoch ?? 0, disks }
    const mayStart = () => requireTenure(deps.tenure(), epoch)
    const { accelerator, specHash, ...identity } = await deps.processes.launch({ ...request, mayStart })
    const record = await deps.processes.launchRecord(uid)
    memory.process = { identity, launchId, seenAt: deps.clock.elapsed(), ...(record && { record }) }
    deps.log.info('started QEMU', { uid, pid: identity.pid, launchId, accelerator, specHash })
  } catch (error) {
    const code = error instanceof PlasmaError ? error.code : 'LaunchFailed'
    memory.launchError = { launchId, code, message: adviceOf(error) }
    deps.log.warn('QEMU could not be started', { uid, launchId, err: error })
  } finally {
    memory.launching = false
  }
}
