import type { VirtualMachine } from './vm.ts'

/**
 * Reasons for which a condition is False that no start gets over: a disk that can't be made or is refused. Others may be
 * what a restart is for.
 */
const lasting: Readonly<Record<string, ReadonlySet<string>>> = {
  DisksReady: new Set(['DiskFailed']),
  Synchronized: new Set(['Refused']),
}

/**
 * Why a machine that runs would not start again once it is stopped, by its conditions; undefined where nothing says so.
 * Words of an older spec count for nothing: the host says anew what it makes of this one before it restarts it.
 */
export function noWayBack({
  metadata,
  status,
}: Pick<VirtualMachine, 'metadata' | 'status'>): string | undefined {
  const found = status?.conditions.find(
    ({ type, status: is, reason, observedGeneration }) =>
      is === 'False' && lasting[type]?.has(reason) && (observedGeneration ?? 0) >= (metadata.generation ?? 0),
  )
  if (!found) return undefined
  const why = found.message === undefined || found.message === '' ? '' : `: ${found.message}`
  return `it would not start again: condition ${found.type} is False, ${found.reason}${why}`
}
