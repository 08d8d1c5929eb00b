import { z } from 'zod'
import type { Message } from './codec.ts'
import { openEnum } from './types.ts'

/** qapi/run-state.json ShutdownCause. */
export const shutdownCauses = [
  'none',
  'host-error',
  'host-qmp-quit',
  'host-qmp-system-reset',
  'host-signal',
  'host-ui',
  'guest-shutdown',
  'guest-reset',
  'guest-panic',
  'subsystem-reset',
  'snapshot-load',
] as const

/** qapi/migration.json MigrationStatus. */
export const migrationStates = [
  'none',
  'setup',
  'cancelling',
  'cancelled',
  'active',
  'postcopy-device',
  'postcopy-active',
  'postcopy-paused',
  'postcopy-recover-setup',
  'postcopy-recover',
  'completed',
  'failing',
  'failed',
  'colo',
  'pre-switchover',
  'device',
  'wait-unplug',
] as const

/** qapi/job.json JobStatus. */
export const jobStates = [
  'undefined',
  'created',
  'running',
  'paused',
  'ready',
  'standby',
  'waiting',
  'pending',
  'aborting',
  'concluded',
  'null',
] as const

const ended = z.object({ guest: z.boolean(), reason: openEnum(shutdownCauses) })
const panicked = z.object({
  action: openEnum(['pause', 'poweroff', 'run']),
  /** What the guest said of it, in the shape of its kind (`hyper-v`, `s390`). */
  info: z.looseObject({ type: z.string() }).optional(),
})
const device = z.object({ device: z.string().optional(), path: z.string() })
const ioActions = ['ignore', 'report', 'stop'] as const

/** The data of every event we tell apart; `undefined` for those that carry none. */
export const eventData = {
  SHUTDOWN: ended,
  RESET: ended,
  POWERDOWN: undefined,
  STOP: undefined,
  RESUME: undefined,
  SUSPEND: undefined,
  SUSPEND_DISK: undefined,
  WAKEUP: undefined,
  GUEST_PANICKED: panicked,
  GUEST_CRASHLOADED: panicked,
  WATCHDOG: z.object({
    action: openEnum(['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none', 'inject-nmi']),
  }),
  MEMORY_FAILURE: z.object({
    recipient: openEnum(['hypervisor', 'guest']),
    action: openEnum(['ignore', 'inject', 'fatal', 'reset']),
    flags: z.object({ 'action-required': z.boolean(), recursive: z.boolean() }),
  }),
  BLOCK_IO_ERROR: z.object({
    /** Of the drive; empty where the disk was made by -blockdev. */
    device: z.string(),
    'node-name': z.string().optional(),
    'qom-path': z.string().optional(),
    operation: openEnum(['read', 'write']),
    action: openEnum(ioActions),
    /** Whether the storage is full. */
    nospace: z.boolean().optional(),
    /** For people; not stable. */
    reason: z.string(),
  }),
  BLOCK_IMAGE_CORRUPTED: z.object({
    device: z.string(),
    'node-name': z.string().optional(),
    msg: z.string(),
    fatal: z.boolean(),
  }),
  DEVICE_DELETED: device,
  DEVICE_UNPLUG_GUEST_ERROR: device,
  JOB_STATUS_CHANGE: z.object({ id: z.string(), status: openEnum(jobStates) }),
  /** Bytes that the guest has now. */
  BALLOON_CHANGE: z.object({ actual: z.number() }),
  VSERPORT_CHANGE: z.object({ id: z.string(), open: z.boolean() }),
  NIC_RX_FILTER_CHANGED: z.object({ name: z.string().optional(), path: z.string() }),
  /** Seconds between the guest's clock and what the host expected. */
  RTC_CHANGE: z.object({ offset: z.number() }),
  MIGRATION: z.object({ status: openEnum(migrationStates) }),
  MIGRATION_PASS: z.object({ pass: z.number() }),
} as const

type EventTable = typeof eventData
export type EventName = keyof EventTable

/** QEMU's wall clock; -1 where it could not tell. */
export interface EventTime {
  readonly seconds: number
  readonly microseconds: number
}

type KnownEvent = {
  [N in EventName]: {
    readonly event: N
    readonly timestamp: EventTime
  } & (EventTable[N] extends z.ZodType ? { readonly data: Readonly<z.output<EventTable[N]>> } : unknown)
}[EventName]

/** An event that we don't tell apart, or whose data has another shape than we know. QEMU's names are upper-case. */
export interface OtherEvent {
  readonly event: 'other'
  readonly name: string
  readonly data?: unknown
  readonly timestamp: EventTime
}

/** An event, told apart by `event`. It is a hint to look again, never the fact itself. */
export type QmpEvent = KnownEvent | OtherEvent

export type EventOf<N extends QmpEvent['event']> = Extract<QmpEvent, { readonly event: N }>

const time = z.object({ seconds: z.number(), microseconds: z.number() })
const noTime: EventTime = { seconds: -1, microseconds: -1 }

/** A message that has a member `event`, as an event. Total: what does not fit becomes an `other`. */
export function parseEvent(message: Message): QmpEvent {
  const name = String(message['event'])
  const timestamp = time.safeParse(message['timestamp']).data ?? noTime
  if (Object.hasOwn(eventData, name)) {
    const schema: z.ZodType | undefined = eventData[name as EventName]
    if (!schema) return { event: name, timestamp } as QmpEvent
    const data = schema.safeParse(message['data'])
    if (data.success) return { event: name, data: data.data, timestamp } as QmpEvent
  }
  return { event: 'other', name, timestamp, ...('data' in message && { data: message['data'] }) }
}
