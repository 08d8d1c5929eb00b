import type { KubeObject } from '../../resources/define.ts'
import { parseQuantity } from '../../resources/quantity.ts'
import { type Phase, phases, type VirtualMachine, vmStatusOf } from '../../resources/vm.ts'

/** A Vm of vmservice.proto. */
export interface VmMessage {
  readonly id: string
  readonly name: string
  readonly namespace: string
  readonly vcpus: number
  readonly memory_mb: number
  readonly state: string
  readonly reason: string
  readonly message: string
  readonly ready: boolean
  readonly host: string
  readonly run_strategy: string
  readonly restarts: number
  readonly labels: Readonly<Record<string, string>>
  readonly created_at: string
  readonly deletion_requested_at: string
  readonly resource_version: string
}

/** `CrashLoopBackOff` as VmState names it: VM_STATE_CRASH_LOOP_BACK_OFF. */
export function stateOf(phase: Phase): string {
  return `VM_STATE_${phase.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()}`
}

/** Largest value of a uint32. */
const maxUint32 = 2 ** 32 - 1
const uint32 = (value: number) => Math.min(Math.max(Math.trunc(value) || 0, 0), maxUint32)

/** Mebibytes of a quantity, rounded up; 0 for what is none, as another version may have stored it. */
function mebibytes(quantity: string | number | undefined): number {
  const bytes = parseQuantity(quantity ?? '')
  return bytes === undefined ? 0 : uint32(Number((bytes + (1n << 20n) - 1n) >> 20n))
}

/** A VirtualMachine as gRPC shows it. One that this version does not understand is shown as far as it goes. */
export function vmMessage(object: KubeObject): VmMessage {
  const { metadata, spec, status: said } = object as VirtualMachine
  const status = vmStatusOf({ status: said })
  const { phase = 'Pending' } = status
  const { cores = 1, sockets = 1, threads = 1 } = spec?.cpu ?? {}
  return {
    id: metadata.uid ?? '',
    name: metadata.name,
    namespace: metadata.namespace ?? '',
    vcpus: uint32(cores * sockets * threads),
    memory_mb: mebibytes(spec?.memory),
    state: phases.includes(phase) ? stateOf(phase) : 'VM_STATE_UNSPECIFIED',
    reason: status.reason ?? '',
    message: status.message ?? '',
    ready: status.conditions.some((one) => one.type === 'Ready' && one.status === 'True'),
    host: status.hostName ?? '',
    run_strategy: spec?.runStrategy ?? '',
    restarts: uint32(status.restarts),
    labels: { ...metadata.labels },
    created_at: metadata.creationTimestamp ?? '',
    deletion_requested_at: metadata.deletionTimestamp ?? '',
    resource_version: metadata.resourceVersion ?? '',
  }
}
