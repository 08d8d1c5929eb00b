import type { Condition, ConditionFact } from '../../resources/conditions.ts'
import type { Happening } from './types.ts'

/** The conditions with ours put in place of those of the same types; all others stay as they are, where they are. */
export function mergeConditions(
  previous: readonly Condition[] | undefined,
  ours: readonly Condition[],
): Condition[] {
  const kept = (previous ?? []).map((one) => ours.find(({ type }) => type === one.type) ?? one)
  return [...kept, ...ours.filter(({ type }) => !kept.some((one) => one.type === type))]
}

/** What is new and worth an event: a host that is lost, held, refused, fenced, or back. */
export function happeningsOf(
  before: readonly Condition[] | undefined,
  facts: readonly ConditionFact[],
): readonly Happening[] {
  return facts.flatMap((now): readonly Happening[] => {
    const was = before?.find(({ type }) => type === now.type)
    if (now.reason === was?.reason || now.reason === 'Fencing') return []
    const { reason, message } = now
    if (now.type === 'Ready') return [{ type: 'Warning', reason, message }]
    if (now.type !== 'Fenced') return []
    if (now.status !== 'False') return [{ type: 'Warning', reason, message }]
    if (was === undefined || was.status === 'False') return []
    return [{ type: 'Normal', reason: 'HostBack', message: 'it renews its lease again' }]
  })
}
