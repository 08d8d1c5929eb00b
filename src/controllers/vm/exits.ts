import { rfc3339 } from '../../lib/clock.ts'
import type { ExitReason, VmStatus } from '../../resources/vm.ts'
import { cleanExits, comesBack, powerAfterExit } from '../../resources/vm-power.ts'
import type { Draft } from './draft.ts'

/** A run this long clears the failures before it. */
export const healthyRunMs = 60_000
const backoffBaseMs = 5_000
export const backoffCapMs = 300_000

/** Wait before the launch after `failures` exits in a row: none after the first, then 5 s doubled, at most 300 s. */
export function restartDelayMs(failures: number): number {
  if (failures <= 1) return 0
  return Math.min(backoffCapMs, backoffBaseMs * 2 ** Math.min(failures - 2, 20))
}

type LastExit = NonNullable<VmStatus['lastExit']>

/** Notes how a run ended: lastExit, whether it should come up again, and how soon. Once a launch. */
export function recordExit(draft: Draft, exit: Omit<LastExit, 'at'>): void {
  const { status } = draft
  const asked = status.stop && (comesBack.has(status.stop.why) ? 'Restart' : 'Stop')
  status.lastExit = { ...exit, at: draft.at }
  if (status.power) status.power = powerAfterExit(status.power, exit.reason, asked)
  if (asked === undefined && exit.reason !== 'HostReboot') countFailure(draft)
  const clean = cleanExits.has(exit.reason)
  draft.tell(clean ? 'Normal' : 'Warning', exit.reason, exit.message ?? exit.reason)
}

function countFailure(draft: Draft): void {
  const failures = (draft.status.backoff?.failures ?? 0) + 1
  const delay = restartDelayMs(failures)
  // Written in whole seconds: round up, so that the time shown is not before the time meant.
  draft.status.backoff = { failures, retryAt: rfc3339(draft.env.now + delay + (delay > 0 ? 999 : 0)) }
}

/** How long until the next launch may be, in ms. */
export function backoffLeftMs({ backoff }: VmStatus, now: number): number {
  return backoff ? leftMs(backoff.retryAt, now, restartDelayMs(backoff.failures)) : 0
}

/** Times are stored in whole seconds, rounded either way. */
const roundedMs = 1_000

/**
 * How much is left of a delay that ends at a stored wall time, in ms. What lies further ahead than the delay is long was
 * written before the clock jumped back: that wait is over, or it would last for as long as the jump was.
 */
export function leftMs(at: string, now: number, delayMs: number): number {
  const left = Date.parse(at) - now
  return left > delayMs + roundedMs ? 0 : Math.max(0, left)
}

/** Reason and words for a process that is proven gone. */
export function classifyGone(draft: Draft): Omit<LastExit, 'at'> {
  const { status, seen } = draft
  const launchId = status.process?.launchId ?? status.launch?.id
  const base = launchId === undefined ? {} : { launchId }
  if (status.process && status.process.bootId !== seen.bootId) {
    return { ...base, reason: 'HostReboot', message: 'the host was rebooted' }
  }
  if (status.stop) return { ...base, reason: 'Stopped', message: `stopped: ${status.stop.why}` }
  const { exit } = seen
  if (!exit) {
    return {
      ...base,
      reason: 'Crashed',
      message: 'QEMU is gone; how it ended is not known, as another server than this one started it',
    }
  }
  const reason: ExitReason = exit.signal === 'SIGKILL' || exit.exitCode === 0 ? 'Killed' : 'Crashed'
  const how = exit.signal ? `was ended by ${exit.signal}` : `exited with code ${exit.exitCode}`
  // Without time and program, which make each event another one.
  const last = exit.output.trim().split('\n').at(-1) ?? ''
  const output = last.replace(/^\d{4}-\d{2}-\d{2}T\S+Z (qemu-\S+: )?/, '')
  return {
    ...base,
    reason,
    message: output ? `QEMU ${how}: ${output}` : `QEMU ${how}`,
    ...(exit.exitCode !== undefined && { exitCode: exit.exitCode }),
    ...(exit.signal !== undefined && { signal: exit.signal }),
  }
}
