import type { CallOf, CommandName, ResultOf } from '../qmp/commands.ts'
import type { ExecuteOptions } from '../qmp/session.ts'
import type { QmpEvent, StatusInfo } from '../qmp/types.ts'
import type { VirtualMachine } from '../resources/vm.ts'

/** What tells one process from every other one this host has had since the epoch. */
export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks after boot: field 22 of /proc/PID/stat. */
  readonly startTime: number
  readonly bootId: string
}

/** A QEMU found by its command line. */
export interface QemuProcess extends ProcessIdentity {
  /** `-uuid`, lower case. */
  readonly uid: string
  /** `guest=` of `-name`: namespace/name for ours. */
  readonly name: string
  /** From our identity mark (`-fw_cfg name=opt/io.plasmavmc/identity`); absent for a foreign QEMU. */
  readonly launchId?: string
  /** The epoch of the host's lease under which it was launched, from the same mark. */
  readonly epoch?: number
  /** Run directory root (`<run-dir>`) named by its `-pidfile <run-dir>/vms/<uid>/qemu.pid`; absent for a foreign one. */
  readonly runDir?: string
  /** State letter of /proc/PID/stat. Zombies (Z, X) are never listed: they are dead. */
  readonly state: string
}

export interface Scan {
  readonly processes: readonly QemuProcess[]
  /** Why the scan may have missed something; a scan with a reason here proves no absence. */
  readonly incomplete?: string
}

/** How a QEMU that was our child ended. An adopted one's code stays unknown to us. */
export interface ProcessExit {
  readonly uid: string
  /** Of the launch that it was: the next one may be under way when the news comes. */
  readonly launchId: string
  readonly identity: ProcessIdentity
  readonly exitCode?: number
  readonly signal?: string
  /** Last lines QEMU wrote, at most 2 KiB. */
  readonly output: string
}

export interface LaunchRequest {
  readonly vm: VirtualMachine
  readonly launchId: string
  readonly epoch: number
  /** Resolved paths of the disks by name, from `Disks.observe`. */
  readonly disks: ReadonlyMap<string, string>
  /** Asked right before the fork; what it throws ends the launch, and no process was started. */
  readonly mayStart?: () => void
}

/** Devices that a running QEMU may or may not have, by id: noted before it is asked for, until what came of it is seen. */
export interface PendingDevices {
  /** In the spec, and perhaps not there yet. */
  readonly adding: readonly string[]
  /** The guest was asked to let them go, and may do so at any time. */
  readonly leaving: readonly string[]
}

/** What launch.json keeps: enough to adopt the machine without any store. Version 1. */
export interface LaunchRecord {
  readonly version: 1
  readonly launchId: string
  readonly epoch: number
  readonly hostName: string
  readonly bootId: string
  readonly at: string
  readonly accelerator: string
  /** Of the program that was started; an upgrade of the package changes nothing for this QEMU. */
  readonly qemuVersion?: string | undefined
  readonly specHash: string
  /** Absent where nothing is being plugged or unplugged. */
  readonly pending?: PendingDevices | undefined
  /** apiVersion, kind, metadata (name, namespace, uid, labels, annotations) and spec. */
  readonly manifest: VirtualMachine
  readonly argv: readonly string[]
}

/** A tap of a running machine that leads nowhere. */
export interface LooseTap {
  readonly network: string
  readonly tap: string
  /** The bridge that it can be put on now. */
  readonly attach?: string
  readonly message: string
}

/** Processes of this host. The only port through which a QEMU is started or signalled. */
export interface Processes {
  readonly bootId: string
  /** QEMUs with our mark that name this run directory are ours; no other is ever adopted or signalled. */
  readonly runDir: string
  /** Every live process with a QEMU command line on this host, ours or not. */
  scan(): Promise<Scan>
  /** Whether exactly this process lives. `gone` is proof; an unreadable /proc is `unknown`. A zombie is gone. */
  inspect(identity: ProcessIdentity): 'alive' | 'stopped' | 'gone' | 'unknown'
  /**
   * Writes launch.json, then starts QEMU detached in its own session and cgroup. Resolves when the process is forked.
   * @throws PlasmaError `QemuMissing`, `PortTaken`, `RunDirUnusable`, `LaunchFailed`; what `mayStart` throws
   */
  launch(
    request: LaunchRequest,
  ): Promise<ProcessIdentity & { readonly accelerator: string; readonly specHash: string }>
  /** Sends the signal only to exactly this QEMU: pid, start time and -uuid are compared right before. */
  signal(
    identity: ProcessIdentity,
    uid: string,
    signal: 'SIGTERM' | 'SIGKILL' | 'SIGCONT',
  ): 'sent' | 'gone' | 'not-it'
  /** launch.json of a uid; undefined where there is none; throws where it is unreadable. */
  launchRecord(uid: string): Promise<LaunchRecord | undefined>
  /**
   * Notes in launch.json that this launch now runs with another spec, durably. @returns the new record; undefined where
   * the record is another launch's or gone, which then stays as it is
   */
  noteSpec(
    uid: string,
    launchId: string,
    running: { readonly spec: VirtualMachine['spec']; readonly pending: PendingDevices },
  ): Promise<LaunchRecord | undefined>
  /** Removes the run directory of a uid whose process is gone, and its cgroup. */
  cleanup(uid: string): Promise<void>
  /** Taps of a machine, as it runs, that are gone or not on their bridge. Never rejects. */
  looseTaps?(vm: VirtualMachine): Promise<readonly LooseTap[]>
  /** Puts a tap on a bridge. @throws PlasmaError `CommandFailed` */
  attachTap?(tap: string, bridge: string): Promise<void>
  /** The last `bytes` of QEMU's own log. */
  log(uid: string, bytes: number): Promise<string>
  /** Calls the listener when a child ends; @returns unsubscribe. */
  onExit(listener: (exit: ProcessExit) => void): () => void
}

export type MachineAnswer =
  | ({ readonly state: 'answered' } & StatusInfo)
  | {
      readonly state: 'unreachable'
      readonly why: 'no-socket' | 'refused' | 'timeout' | 'closed' | 'error'
      readonly message: string
    }

export type MachineChange = { readonly uid: string } & (
  | { readonly type: 'event'; readonly event: QmpEvent }
  | { readonly type: 'closed' }
)

/** QMP of this host's machines: one reserved monitor a machine, connected on first use and kept. */
export interface Machines {
  /** Asks query-status; connects first where needed. Never rejects. */
  status(uid: string): Promise<MachineAnswer>
  /** As `QmpSession.execute`; connects first where needed. @throws QmpError family */
  execute<N extends CommandName>(
    uid: string,
    command: N,
    ...call: CallOf<N, ExecuteOptions>
  ): Promise<ResultOf<N>>
  onChange(listener: (change: MachineChange) => void): () => void
  /** Closes the session of a uid, if any. */
  forget(uid: string): void
  close(): Promise<void>
}

export interface DiskState {
  readonly name: string
  readonly state: 'absent' | 'preparing' | 'ready' | 'failed'
  /** Its file on this host, or the URL of its export. */
  readonly path?: string
  /** The virtual size that it has, as a quantity; of disks that were made for the machine. */
  readonly size?: string
  /** It was ready when it was last looked at, which is too long ago for a start: `prepare` looks again. */
  readonly stale?: true
  readonly message?: string
  readonly progressPercent?: number
}

/** Disks of this host's machines: `<pool>/<uid>/<name>.<format>`, plus the NoCloud seed and UEFI variables. */
export interface Disks {
  /**
   * Looks, changes nothing. Includes `cloud-init` and `efi-vars` where the spec asks for them. `failed` keeps the
   * error of the last preparation until `prepare` is called again. Kernel and initrd files that are missing make
   * a `failed` entry named `kernel` or `initrd`; a `kernel` entry that is ready carries the resolved path. An export of
   * an NBD server is `absent` until `prepare` has found it: not for machines whose QEMU may have it open.
   */
  observe(vm: VirtualMachine): Promise<readonly DiskState[]>
  /**
   * Starts preparing in the background; a running preparation is left alone. Reported through onChange. `only` names
   * the disks to prepare; all unless given.
   */
  prepare(vm: VirtualMachine, only?: readonly string[]): void
  /**
   * Checks that the pool of a disk that QEMU has open takes what the disk is to grow by.
   * @throws PlasmaError `PoolFull` naming the field
   */
  checkGrowth(vm: VirtualMachine, name: string): Promise<void>
  /** Deletes what `prepare` made for this uid; never a `path` disk. Safe to repeat. */
  remove(vm: VirtualMachine): Promise<void>
  /** Forgets a machine that is another host's from now on: what is under way for it is ended, no disk is removed. */
  letGo?(uid: string): Promise<void>
  onChange(listener: (uid: string) => void): () => void
  close(): Promise<void>
}

/**
 * Whether this host may start guests now. `single`: the store is this host's own, nobody else could. `held`: it holds
 * its lease for `leftMs` more; what was placed under an older epoch is not its own unless it takes it up anew.
 */
export type Tenure =
  | { readonly state: 'single' }
  | { readonly state: 'held'; readonly epoch: number; readonly leftMs: number }
  | { readonly state: 'lost'; readonly why: string }
