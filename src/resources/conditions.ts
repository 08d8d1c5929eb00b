import { z } from 'zod'
import { listOf } from './schema.ts'

/** A Kubernetes condition (metav1.Condition). */
export const condition = z.object({
  type: z.string(),
  status: z.enum(['True', 'False', 'Unknown']),
  reason: z.string(),
  message: z.string().default(''),
  lastTransitionTime: z.string(),
  observedGeneration: z.int().optional(),
})

/** A status' list of conditions, told apart by their type. */
export const conditions = z.array(condition).meta(listOf('type')).default([])

export type Condition = z.output<typeof condition>

export type ConditionFact = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>

/**
 * Conditions recomputed from facts: exactly the given ones remain, and a lastTransitionTime moves only when the status did.
 * @param at RFC 3339 time for the ones that changed
 */
export function setConditions(
  previous: readonly Condition[] | undefined,
  facts: readonly ConditionFact[],
  at: string,
  generation: number,
): Condition[] {
  return facts.map((fact) => {
    const before = previous?.find((c) => c.type === fact.type)
    const lastTransitionTime = before?.status === fact.status ? before.lastTransitionTime : at
    return { ...fact, lastTransitionTime, observedGeneration: generation }
  })
}
