import type {
  DiskState,
  LaunchRecord,
  LooseTap,
  MachineAnswer,
  PendingDevices,
  ProcessExit,
  ProcessIdentity,
  Tenure,
} from '../../host/ports.ts'
import type { LocalDisk } from '../../resources/disk-reach.ts'
import type { VmSpec, VmStatus } from '../../resources/vm.ts'
import type { Heard } from './heard.ts'
import type { QmpCall } from './live-steps.ts'
import type { MachineFacts } from './machine-facts.ts'

/** A disk on which the guest's reading or writing failed, as QEMU says while it holds the guest for it. */
export interface FailedDisk {
  readonly name: string
  readonly noSpace: boolean
}

/** What is known of a machine's process. Absence must be proven: anything else is not `absent`. */
export type ProcessFact =
  | { readonly state: 'absent' }
  | { readonly state: 'unknown'; readonly why: string }
  | { readonly state: 'duplicate'; readonly pids: readonly number[] }
  | {
      readonly state: 'alive'
      readonly identity: ProcessIdentity
      /** From the command line; absent for a QEMU without our mark. */
      readonly launchId?: string
      /** The process is stopped by a signal (SIGSTOP) or a tracer. */
      readonly stopped: boolean
      readonly record?: LaunchRecord
      /** Asked only where a change may be made while the guest runs; absent where QEMU did not say. */
      readonly facts?: MachineFacts
      readonly machine: MachineAnswer
      /** Asked in the state `io-error` only; absent where QEMU did not say. */
      readonly failedDisks?: readonly FailedDisk[]
      /** Taps that are gone or not on their bridge. */
      readonly looseTaps?: readonly LooseTap[]
      /** Monotonic ms since this agent first saw the process; after a restart of the agent it starts anew. */
      readonly seenForMs: number
      /** Monotonic ms since the first query in a row that got no answer; 0 where it answers. */
      readonly silentForMs: number
    }

export interface Tried {
  readonly tries: number
  /** Ms until it may be tried again; 0 now. */
  readonly retryInMs: number
  /** QEMU obeyed the last try. */
  readonly done: boolean
  /** Why the last try failed. */
  readonly error?: string
}

/** Everything one pass has looked at. Plain data: any case is a fixture. */
export interface Observed {
  readonly bootId: string
  readonly hostName: string
  readonly hostLabels: Readonly<Record<string, string>>
  readonly tenure: Tenure
  /** Why a machine that has no host can't be placed on this one. Only where no other host shares the store. */
  readonly refusal?: string
  /** Disks with something on them that no other host reaches; empty where there is no other host. */
  readonly localDisks: readonly LocalDisk[]
  readonly process: ProcessFact
  /** Steps of live changes that were taken, by key: how often, when the next try may be, and what came of the last. */
  readonly live: Readonly<Record<string, Tried>>
  /** What QEMU told since the last recorded pass, oldest first. */
  readonly heard: readonly Heard[]
  /** A launch that this agent is executing right now. */
  readonly launching: boolean
  /** How the last child of this agent for this machine ended, while it is not yet classified. */
  readonly exit?: ProcessExit
  /** Why the last launch of this agent failed before there was a process. */
  readonly launchError?: { readonly launchId: string; readonly code: string; readonly message: string }
  readonly disks: readonly DiskState[]
  /** Ms until a failed disk preparation may be tried again; 0 now. */
  readonly diskRetryInMs: number
  /** Another machine that holds one of this one's writable disks: its key and the field. */
  readonly diskClaim?: { readonly by: string; readonly field: string; readonly path: string }
  /**
   * Why writes to its exports may arrive after its QEMU is dead, if the host is cut off meanwhile. Only where there are
   * other hosts and it writes to exports.
   */
  readonly lateWrites?: string
  /** Monotonic ms since the stop under way was first seen by this agent. */
  readonly stopElapsedMs: number
  /** Monotonic ms since the end of this launch's guest was first seen recorded by this agent; 0 where it is not. */
  readonly endedElapsedMs: number
  /** Hash of the spec members that need a restart, as the spec is now. */
  readonly specHash: string
  /** Whether what `dispose` removes is gone already. */
  readonly disposed: boolean
  /** Why the last try to do so failed. */
  readonly disposeError?: string
}

/** The next safe steps, as data. None may need another's result. */
export type Action =
  | { readonly do: 'addFinalizer' }
  | { readonly do: 'dropFinalizer' }
  /** `only` where the machine runs: the disks that it does not have yet. */
  | { readonly do: 'prepareDisks'; readonly only?: readonly string[] }
  | { readonly do: 'launch'; readonly launchId: string }
  | { readonly do: 'resume' }
  | { readonly do: 'pause' }
  | { readonly do: 'reset' }
  | { readonly do: 'powerdown' }
  | { readonly do: 'quit'; readonly why: string }
  | { readonly do: 'kill'; readonly identity: ProcessIdentity; readonly why: string }
  /**
   * One step of a change to a running machine, its commands in order; the first that fails is the last. `key` names the
   * step for its back-off, `grows` the disk whose pool must have room for it.
   */
  | {
      readonly do: 'live'
      readonly key: string
      readonly launchId: string
      readonly calls: readonly QmpCall[]
      readonly grows?: string
    }
  /** Notes in launch.json what the running QEMU has become, and what it is about to be asked for. */
  | {
      readonly do: 'noteSpec'
      readonly launchId: string
      readonly spec: VmSpec
      readonly pending: PendingDevices
    }
  | { readonly do: 'attachTap'; readonly tap: string; readonly bridge: string }
  /** Removes disks, run directory and cgroup of a machine that is being deleted and has no process. */
  | { readonly do: 'dispose' }
  /** Removes what this host has of a machine that it gave up, but no disk. */
  | { readonly do: 'relinquish' }

/** Something for people, recorded as a Kubernetes Event. */
export interface Happening {
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  readonly message: string
}

export interface Plan {
  readonly status: VmStatus
  readonly actions: readonly Action[]
  readonly happenings: readonly Happening[]
  /** Look again after this many ms even if nothing is heard. */
  readonly recheckMs?: number
}

/** Time and randomness of a plan. `now` is wall ms, for records. */
export interface PlanEnv {
  readonly now: number
  readonly newId: () => string
}
