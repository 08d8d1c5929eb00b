import { z } from 'zod'
import { conditions } from './conditions.ts'
import { listOf } from './schema.ts'
import { runStrategies } from './vm-strategies.ts'

export const phases = [
  'Pending',
  'Provisioning',
  'Starting',
  'Running',
  'Paused',
  'Migrating',
  'Stopping',
  'Stopped',
  'Failed',
  'CrashLoopBackOff',
  'Unresponsive',
  'Unknown',
  'Terminating',
] as const
export type Phase = (typeof phases)[number]

export const exitReasons = [
  'GuestShutdown',
  'GuestPanicked',
  'WatchdogPoweroff',
  'Stopped',
  'Killed',
  'Crashed',
  'LaunchFailed',
  'HostReboot',
  'HostLost',
  'Lost',
  'InternalError',
] as const
export type ExitReason = (typeof exitReasons)[number]

/** Requests that the imperative verbs leave for the host's controller; at most one waits. */
export const vmActions = ['Start', 'Stop', 'Restart', 'Pause', 'Unpause', 'Reset', 'Move'] as const
export type VmAction = (typeof vmActions)[number]

const process = z.object({
  pid: z.int(),
  startTime: z.int().describe("Clock ticks after boot, field 22 of the host's /proc/PID/stat."),
  bootId: z.string(),
  launchId: z.string(),
  accelerator: z.string(),
  qemuVersion: z.string().optional(),
  startedAt: z.string(),
  /** Hash of the spec members that need a restart, as launched. */
  specHash: z.string(),
})

export const vmStatus = z.object({
  phase: z.enum(phases).optional(),
  reason: z.string().optional(),
  message: z.string().optional(),
  hostName: z.string().optional(),
  placementEpoch: z
    .int()
    .optional()
    .describe(
      "The epoch of the host's lease under which the machine was placed there, or was last taken up.",
    ),
  disksHost: z
    .string()
    .optional()
    .describe(
      'The host on which it was placed last. Of its disks, those that no other host can reach are there, and while there are any it is placed on that host alone.',
    ),
  evidence: z
    .string()
    .optional()
    .describe('Name of the FenceEvidence by which it was last taken from a lost host.'),
  onHostLoss: z
    .enum(['Manual', 'Failover'])
    .optional()
    .describe(
      'What its host does with it, as of now: Failover once the host would stop it when it is cut off.',
    ),
  observedGeneration: z.int().optional(),
  process: process.optional(),
  /** The launch that is intended or under way: written before QEMU is started. */
  launch: z.object({ id: z.string(), at: z.string(), bootId: z.string() }).optional(),
  exports: z
    .array(z.string())
    .optional()
    .describe(
      'Exports of NBD servers that its QEMU writes to, or may, as host:port/exportName: no other machine is started on them.',
    ),
  /** The stop under way: set when powerdown is first asked for. */
  stop: z.object({ why: z.string(), at: z.string(), graceSeconds: z.int() }).optional(),
  request: z.object({ action: z.enum(vmActions), id: z.string(), at: z.string() }).optional(),
  /** A person paused it; holds until unpaused or until the next launch. */
  pausedByUser: z.boolean().optional(),
  /** Whether it should be up now, as the strategy, its exits and the requests have it. */
  power: z.object({ strategy: z.enum(runStrategies), desired: z.enum(['Up', 'Down']) }).optional(),
  /** Resuming after an I/O error. */
  ioError: z.object({ retries: z.int(), retryAt: z.string(), cause: z.string().optional() }).optional(),
  guest: z
    .object({
      reboots: z.int().describe('Reboots by the guest itself.'),
      lastRebootAt: z.string().optional(),
      watchdogs: z.int().describe('How often its watchdog fired.'),
      lastWatchdogAt: z.string().optional(),
    })
    .optional()
    .describe('What the guest did since its QEMU was started, as far as it was heard of.'),
  restarts: z.int().default(0).describe('Launches after the first, for whatever reason.'),
  backoff: z
    .object({ failures: z.int(), retryAt: z.string() })
    .optional()
    .describe('Consecutive failures and when the next launch may be.'),
  lastExit: z
    .object({
      reason: z.enum(exitReasons),
      message: z.string().optional(),
      exitCode: z.int().optional(),
      signal: z.string().optional(),
      launchId: z.string().optional(),
      at: z.string(),
    })
    .optional(),
  disks: z
    .array(
      z.object({
        name: z.string(),
        path: z.string().optional(),
        size: z
          .string()
          .optional()
          .describe('The virtual size that it has, of a disk that was made for the machine.'),
        state: z.enum(['Pending', 'Preparing', 'Ready', 'Failed']),
        message: z.string().optional(),
        progressPercent: z.int().optional(),
      }),
    )
    .meta(listOf('name'))
    .default([]),
  networks: z
    .array(z.object({ name: z.string(), mac: z.string() }))
    .meta(listOf('name'))
    .default([]),
  conditions,
})
export type VmStatus = z.output<typeof vmStatus>

/** What a machine's status says; of one that nobody has looked at yet, one that says nothing. */
export function vmStatusOf({ status }: { readonly status?: VmStatus | undefined }): VmStatus {
  return { restarts: 0, networks: [], disks: [], conditions: [], ...status }
}
