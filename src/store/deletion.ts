import type { KubeObject, ObjectMeta, ResourceDefinition } from '../resources/define.ts'
import { withDefaults } from '../resources/parse.ts'
import type { DeleteOptions } from './objects.ts'

/** The finalizer of an object that goes after what it owns. */
export const foregroundFinalizer = 'foregroundDeletion'
/** The finalizer of an object that goes once what it owns no longer names it. */
export const orphanFinalizer = 'orphan'

/** Kubernetes' finalizers of a deletion with a policy: without one they stay as they are. */
function finalizersFor(
  current: readonly string[] = [],
  propagation: DeleteOptions['propagation'],
): readonly string[] {
  if (propagation === undefined) return current
  const others = current.filter((name) => name !== foregroundFinalizer && name !== orphanFinalizer)
  if (propagation === 'Foreground') return [...others, foregroundFinalizer]
  return propagation === 'Orphan' ? [...others, orphanFinalizer] : others
}

/** Whether something has to be done before an object that is being deleted goes. */
export function isHeld(kind: ResourceDefinition, object: KubeObject): boolean {
  if (object.metadata.finalizers?.length) return true
  if (!kind.finalized) return false
  const { spec } = withDefaults(kind, object) as { spec?: { finalizers?: readonly string[] } }
  return Boolean(spec?.finalizers?.length)
}

/**
 * What a deletion makes of a stored object: as it is marked, with its generation grown where that is new; the very object
 * where nothing changes. It is to be removed where `isHeld` says nothing holds the result.
 * @param at RFC 3339 time of the deletion
 */
export function deleted<T extends KubeObject>(
  kind: ResourceDefinition<T>,
  object: T,
  { propagation }: DeleteOptions,
  at: string,
): T {
  const before = object.metadata.finalizers ?? []
  const finalizers = finalizersFor(before, propagation)
  const fresh = object.metadata.deletionTimestamp === undefined
  if (!fresh && String(finalizers) === String(before)) return object
  const { finalizers: _, ...rest } = object.metadata
  const metadata: ObjectMeta = { ...rest, ...(finalizers.length > 0 && { finalizers: [...finalizers] }) }
  const next = { ...object, metadata }
  if (!fresh || !isHeld(kind, next)) return next
  return {
    ...next,
    metadata: {
      ...metadata,
      deletionTimestamp: at,
      deletionGracePeriodSeconds: 0,
      generation: (metadata.generation ?? 0) + 1,
    },
    ...(kind.finalized && { status: { ...(object.status as object | undefined), phase: 'Terminating' } }),
  }
}

/** An updated object of a kind whose spec.finalizers only finalizing changes, which changes nothing else. */
export function finalized<T extends KubeObject>(before: T, next: T, finalize: boolean): T {
  const specOf = (object: T) => (object.spec ?? {}) as { readonly finalizers?: readonly string[] }
  const from = finalize ? next : before
  const { finalizers: _, ...spec } = specOf(finalize ? before : next)
  const { finalizers } = specOf(from)
  const whole = finalize ? { ...before, metadata: { ...before.metadata } } : next
  return { ...whole, spec: { ...spec, ...(finalizers && { finalizers }) } }
}
