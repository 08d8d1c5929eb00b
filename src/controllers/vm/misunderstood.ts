import type { Tenure } from '../../host/ports.ts'
import { type Clock, rfc3339 } from '../../lib/clock.ts'
import { setConditions } from '../../resources/conditions.ts'
import { lossMark } from '../../resources/host-loss.ts'
import { VirtualMachine, type VmStatus, vmStatusOf } from '../../resources/vm.ts'
import type { Outcome } from '../../runtime/controller.ts'
import type { ObjectStore } from '../../store/objects.ts'
import type { Happening } from './types.ts'

const reason = 'NotUnderstood'

/**
 * What a pass does with a machine whose spec another version of PlasmaVMC stored, and this one does not understand:
 * whatever runs runs on, nothing is started, and its status says why.
 */
export async function leaveAlone(
  vm: VirtualMachine,
  why: string,
  deps: {
    readonly objects: ObjectStore
    readonly clock: Clock
    readonly hostName: string
    readonly tenure: () => Tenure
    readonly tell: (vm: VirtualMachine, happening: Happening) => void
  },
): Promise<Outcome> {
  const { objects, clock, hostName, tenure, tell } = deps
  const message = `host ${hostName} does nothing with it, as its PlasmaVMC is another version than the one that stored it: ${why}; upgrade ${hostName}, or change that field`
  const before = vm.status
  // The leader's word stands while the host is lost.
  if (tenure().state === 'lost' && lossMark(before)) return { next: 'done' }
  if (before?.reason === reason && before.message === message) return { next: 'done' }
  const ready = { type: 'Ready', status: 'Unknown', reason, message } as const
  const at = rfc3339(clock.now())
  const own = setConditions(before?.conditions, [ready], at, vm.metadata.generation ?? 0)
  const others = (before?.conditions ?? []).filter(({ type }) => type !== ready.type)
  // Ready comes first, also where placement alone has said something so far.
  const conditions = [...own, ...others]
  const status: VmStatus = { ...vmStatusOf(vm), phase: 'Unknown', reason, message, conditions }
  const told = await objects.updateStatus(VirtualMachine, { ...vm, status })
  tell(told, { type: 'Warning', reason, message })
  return { next: 'done' }
}
