import { z } from 'zod'

export type { QmpEvent } from './events.ts'

/** One of the names we know, or one that a later QEMU added. */
export type Open<T extends string> = T | (string & {})

/** No name in QAPI comes near it; what others send us ends up in statuses and logs. */
const maxNameLength = 128

/**
 * An enumeration in an answer or an event. Names that we don't know pass: a later QEMU that has more of them still
 * tells the truth. `known` is compared with the recorded schemas by a test.
 */
export function openEnum<const T extends readonly string[]>(known: T): z.ZodType<Open<T[number]>> {
  return z.string().min(1).max(maxNameLength).meta({ known })
}

/** Every RunState of QEMU 7.2 to 11.1 (qapi/run-state.json). */
export const runStates = [
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
] as const
export type KnownRunState = (typeof runStates)[number]

/**
 * A run state as QEMU named it. One that we don't know is an answer like any other: QEMU lives, holds its machine, and
 * `StatusInfo.running` says whether virtual CPUs run. Decide on the known ones and leave QEMU alone otherwise.
 */
export type RunState = Open<KnownRunState>

/** qapi/run-state.json StatusInfo: the answer of query-status. */
export const statusInfo = z.object({
  running: z.boolean(),
  /** In a form that may stand in a condition and a log line, whoever answered. */
  status: openEnum(runStates).refine((name) => /^[A-Za-z][\w-]*$/.test(name), 'is no name of a run state'),
})
export type StatusInfo = Readonly<z.output<typeof statusInfo>>

/** qapi/control.json VersionInfo: in the greeting and the answer of query-version. */
export const versionInfo = z.object({
  qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
  package: z.string(),
})
export type VersionInfo = Readonly<z.output<typeof versionInfo>>
