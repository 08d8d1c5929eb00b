import type { Phase, VmStatus } from './vm.ts'

/** With what the leader marks a machine while its host is lost: phase Unknown, and one of these reasons. */
export type LossReason = 'HostLost' | 'StorageLost'

const between = '; its server, which the store still hears, says: '

export interface LossMark {
  readonly reason: LossReason
  /** The leader's words, without those that the host's agent has added. */
  readonly message: string
}

/** The mark that a machine bears, if it does. */
export function lossMark(
  status: Pick<VmStatus, 'phase' | 'reason' | 'message'> | undefined,
): LossMark | undefined {
  const { phase, reason, message = '' } = status ?? {}
  if (phase !== 'Unknown' || (reason !== 'HostLost' && reason !== 'StorageLost')) return undefined
  const end = message.indexOf(between)
  return { reason, message: end < 0 ? message : message.slice(0, end) }
}

/** The message of a marked machine with what its agent sees of it. */
export function withAgentsWord(
  { message }: LossMark,
  seen: { readonly phase: Phase; readonly reason: string; readonly message: string },
): string {
  const word = seen.reason === seen.phase ? seen.phase : `${seen.phase} (${seen.reason})`
  return `${message}${between}${word}${seen.message === '' ? '' : `: ${seen.message}`}`
}
