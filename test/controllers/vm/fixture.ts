import { plan } from '../../../src/controllers/vm/plan.ts'
import type { Action, Observed, Plan, ProcessFact } from '../../../src/controllers/vm/types.ts'
import { manifestOf } from '../../../src/host/launch-record.ts'
import type { LaunchRecord, MachineAnswer, Tenure } from '../../../src/host/ports.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import {
  VirtualMachine,
  type VmAction,
  type VmSpec,
  type VmStatus,
  vmFinalizer,
  vmSpec,
} from '../../../src/resources/vm.ts'

export const uid = '11111111-1111-4111-8111-111111111111'
/** A whole second, as written times are. */
export const now = Date.parse('2026-01-01T12:00:00Z')

/** RFC 3339 of `now` and `ms` more. */
export const time = (ms = 0) => `${new Date(now + ms).toISOString().slice(0, 19)}Z`

type Alive = Extract<ProcessFact, { state: 'alive' }>
type Process = NonNullable<VmStatus['process']>

export const identity = { pid: 42, startTime: 4200, bootId: 'boot-1' }

export const spec = (of: Record<string, unknown> = {}): VmSpec => vmSpec.parse(of)

export const process: Process = {
  ...identity,
  launchId: 'l-1',
  accelerator: 'tcg',
  startedAt: time(-3_600_000),
  specHash: 'same',
}

/** A machine with its finalizer; `status` gets the members that are not given. */
export function machine(
  of: Record<string, unknown> = {},
  status: Partial<VmStatus> = {},
  metadata: Partial<VirtualMachine['metadata']> = {},
): VirtualMachine {
  return {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: VirtualMachine.kind,
    metadata: {
      ...{ name: 'web', namespace: 'default', uid, generation: 1, finalizers: [vmFinalizer] },
      ...metadata,
    },
    spec: spec(of),
    status: { restarts: 0, networks: [], disks: [], conditions: [], ...status },
  }
}

/** A machine whose QEMU was running at the last pass. */
export function runningMachine(of: Record<string, unknown> = {}, status: Partial<VmStatus> = {}) {
  const phase: Partial<VmStatus> = { phase: 'Running', reason: 'Running', process }
  return machine(of, { ...phase, ...status })
}

export function answer(status: RunState): MachineAnswer {
  return { state: 'answered', status, running: status === 'running' }
}

export const noAnswer: MachineAnswer = { state: 'unreachable', why: 'timeout', message: 'no answer' }

/** A process that has lived for an hour. */
export function alive(machineAnswer: MachineAnswer | RunState = 'running', more: Partial<Alive> = {}): Alive {
  const given = typeof machineAnswer === 'string' ? answer(machineAnswer) : machineAnswer
  return {
    ...{ state: 'alive', identity, launchId: 'l-1', stopped: false, machine: given },
    ...{ seenForMs: 3_600_000, silentForMs: given.state === 'answered' ? 0 : 5_000 },
    ...more,
  }
}

export const absent: ProcessFact = { state: 'absent' }
export const unknown: ProcessFact = { state: 'unknown', why: 'no /proc' }

/** What the guard says of this host's lease. */
export const held = (epoch = 7, leftMs = 5_000): Tenure => ({ state: 'held', epoch, leftMs })
export const lost: Tenure = { state: 'lost', why: 'not for 6.2 s' }
export const under = (tenure: Tenure, more: Partial<Observed> = {}) => ({ tenure, ...more })

/** Placed on this host, under the epoch of `held`. */
export const here: Partial<VmStatus> = { hostName: 'host-a', placementEpoch: 7 }

export const asked = (action: VmAction): Partial<VmStatus> => ({ request: { action, id: 'r', at: time() } })

export function observed(fact: ProcessFact, more: Partial<Observed> = {}): Observed {
  return {
    ...{ bootId: 'boot-1', hostName: 'host-a', hostLabels: {}, process: fact, launching: false, disks: [] },
    ...{
      diskRetryInMs: 0,
      stopElapsedMs: 0,
      endedElapsedMs: 0,
      heard: [],
      live: {},
      specHash: 'same',
      disposed: false,
      tenure: { state: 'single' },
      localDisks: [],
    },
    ...more,
  }
}

/** The plan for a machine and what was seen of its process. */
export function planOf(vm: VirtualMachine, fact: ProcessFact, more: Partial<Observed> = {}, at = now): Plan {
  return plan(vm, observed(fact, more), { now: at, newId: () => 'l-2' })
}

/** The machine as it stands after a plan was recorded. */
export const recorded = (vm: VirtualMachine, next: Plan): VirtualMachine => ({ ...vm, status: next.status })

export const verbs = (next: Plan): Action['do'][] => next.actions.map((action) => action.do)

export const condition = (next: Plan, type: string) =>
  next.status.conditions.find((candidate) => candidate.type === type)

/** launch.json of the launch `l-1` with this spec. */
export function record(of: VmSpec, hash = 'same'): LaunchRecord {
  return {
    ...{ version: 1, launchId: 'l-1', epoch: 0, hostName: 'host-a', bootId: 'boot-1', at: time() },
    ...{ accelerator: 'tcg', qemuVersion: '7.2.0', specHash: hash, argv: [] },
    manifest: manifestOf({ ...machine(), spec: of }),
  }
}
