import type { ConditionFact } from '../resources/conditions.ts'
import { type GuardRecord, tenureOf } from './guard-file.ts'

/** What the guard of a host says of itself, as the Host's condition `Guarded`, and what the lease says of the agent. */
export interface GuardNews {
  readonly guarded: ConditionFact
  readonly agent?: 'alive' | 'silent'
}

/** The agent's own part: what is known of the guard's process, and of what the agent does in its place. */
export interface GuardHost {
  readonly bootId: string
  /** Ms of the host's clock. */
  readonly now: number
  readonly lives: (record: GuardRecord) => boolean
  /** After so long without a sign of life the guard is replaced, ms. */
  readonly stuckMs: number
  /** How the last guard ended; empty where that is not known. */
  readonly lastWords: string
  /** What the agent found that did the guard's work; absent where it does not. */
  readonly acting?: string | undefined
}

/** How a guard that does not hold the lease stands, as a condition's reason. */
const reasons: Readonly<Record<string, string>> = {
  starting: 'Starting',
  suspended: 'Suspended',
  holding: 'Holding',
  stopping: 'Stopping',
  stopped: 'Stopped',
  lost: 'StoreLost',
}

/**
 * What there is to say of the guard by what it told last. Pure; without anything that changes with the time alone, as it
 * is written into the Host.
 */
export function guardNews(record: GuardRecord | undefined, host: GuardHost): GuardNews {
  const not = (reason: string, message: string): ConditionFact => ({
    ...{ type: 'Guarded', status: 'False', reason },
    message: host.acting === undefined ? message : `${message}; ${host.acting}`,
  })
  const ended = host.lastWords === '' ? '' : ` (${host.lastWords})`
  if (!record) return { guarded: not('GuardMissing', `there is no guard${ended}: this server starts one`) }
  const { pid, agent, standing, why, waits } = record
  const more = agent === undefined ? {} : { agent }
  if (!host.lives(record))
    return { guarded: not('GuardEnded', `the guard has ended${ended}: this server starts another`), ...more }
  if (host.now - record.aliveAt >= host.stuckMs)
    return {
      guarded: not(
        'GuardSilent',
        `the guard, process ${pid}, gives no sign of life: this server replaces it`,
      ),
      ...more,
    }
  const { state } = tenureOf(record, { bootId: host.bootId, now: host.now, lives: () => true })
  if (state === 'held')
    return { guarded: { type: 'Guarded', status: 'True', reason: 'LeaseHeld', message: '' }, ...more }
  // It has not had the time to say that it is over.
  const late = record.held && !record.fencing
  const message = late ? 'the lease was not renewed in time' : waits === undefined ? why : `${why}; ${waits}`
  return { guarded: not(reasons[standing ?? ''] ?? 'LeaseLost', message), ...more }
}
