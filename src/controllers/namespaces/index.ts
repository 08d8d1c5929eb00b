import { type Clock, rfc3339 } from '../../lib/clock.ts'
import { type ConditionFact, setConditions } from '../../resources/conditions.ts'
import type { KubeObject, ResourceDefinition } from '../../resources/define.ts'
import { Event, Namespace } from '../../resources/kinds.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'

export interface NamespacesDeps {
  readonly objects: ObjectStore
  readonly kinds: readonly ResourceDefinition[]
  readonly clock: Clock
}

/** Ours among a namespace's spec.finalizers, as Kubernetes calls it. */
const finalizer = 'kubernetes'
const done: Outcome = { next: 'done' }
/** How often it is looked whether what is left has gone. */
const againMs = 1_000
/** Deletions under way at once. */
const lanes = 50

/**
 * Deletes what is in a namespace that is being deleted, and lets go of it when nothing is left. What can't be listed is
 * an error, never taken for nothing. @throws ApiError
 */
export async function emptyNamespace(name: string, deps: NamespacesDeps): Promise<Outcome> {
  const { objects } = deps
  const namespace = await read(name, deps)
  const event = Event as ResourceDefinition
  // What happened to the last that was in it may be written down after it has gone.
  if (!namespace) return (await clear([event], name, deps)).length > 0 ? { next: 'wait', ms: againMs } : done
  const { finalizers } = namespace.spec
  if (namespace.metadata.deletionTimestamp === undefined || !finalizers.includes(finalizer)) return done
  const kinds = deps.kinds.filter((kind) => kind.namespaced && kind !== event)
  // Events last: until then they tell what keeps the rest.
  const first = await clear(kinds, name, deps)
  const left = first.length > 0 ? first : await clear([event], name, deps)
  if (left.length > 0) {
    await tell(namespace, left, deps)
    return { next: 'wait', ms: againMs }
  }
  const others = finalizers.filter((one) => one !== finalizer)
  const next = { ...namespace, spec: { ...namespace.spec, finalizers: others } }
  await objects.update(Namespace, next, { finalize: true })
  return done
}

async function read(name: string, { objects }: NamespacesDeps): Promise<Namespace | undefined> {
  try {
    return await objects.get(Namespace, { name })
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

interface Left {
  readonly kind: ResourceDefinition
  readonly items: readonly KubeObject[]
}

/** Deletes all of these kinds in a namespace. @returns what is there after that */
async function clear(
  kinds: readonly ResourceDefinition[],
  namespace: string,
  { objects }: NamespacesDeps,
): Promise<readonly Left[]> {
  const left: Left[] = []
  for (const kind of kinds) {
    const { items } = await objects.list(kind, { namespace })
    if (items.length === 0) continue
    const fresh = items.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    for (let i = 0; i < fresh.length; i += lanes)
      await Promise.all(fresh.slice(i, i + lanes).map((item) => remove(kind, item, objects)))
    const now = await objects.list(kind, { namespace })
    if (now.items.length > 0) left.push({ kind, items: now.items })
  }
  return left
}

async function remove(
  kind: ResourceDefinition,
  { metadata }: KubeObject,
  objects: ObjectStore,
): Promise<void> {
  const { uid } = metadata
  const options = { propagation: 'Background' as const, ...(uid !== undefined && { uid }) }
  await objects.delete(kind, metadata, options).catch((error: unknown) => {
    // Gone, or another one by now, which the next look finds.
    if (!isReason(error, 'NotFound') && !isReason(error, 'Conflict')) throw error
  })
}

/** Says in Kubernetes' conditions what keeps the namespace. */
async function tell(namespace: Namespace, left: readonly Left[], { objects, clock }: NamespacesDeps) {
  const kinds = left.map(
    ({ kind, items }) =>
      `${kind.plural}${kind.group === '' ? '' : `.${kind.group}`} has ${items.length} resource instances`,
  )
  const counts = new Map<string, number>()
  for (const name of left.flatMap(({ items }) => items.flatMap((one) => one.metadata.finalizers ?? [])))
    counts.set(name, (counts.get(name) ?? 0) + 1)
  const held = [...counts].map(([name, count]) => `${name} in ${count} resource instances`)
  const facts: ConditionFact[] = [
    {
      ...{ type: 'NamespaceContentRemaining', status: 'True', reason: 'SomeResourcesRemain' },
      message: `Some resources are remaining: ${kinds.join(', ')}`,
    },
    {
      ...{
        type: 'NamespaceFinalizersRemaining',
        reason: held.length > 0 ? 'SomeFinalizersRemain' : 'ContentHasNoFinalizers',
      },
      status: held.length > 0 ? 'True' : 'False',
      message:
        held.length > 0
          ? `Some content in the namespace has finalizers remaining: ${held.join(', ')}`
          : 'All content-preserving finalizers finished',
    },
  ]
  const { status, metadata } = namespace
  const at = rfc3339(clock.now())
  const conditions = setConditions(status.conditions, facts, at, metadata.generation ?? 0)
  await objects.updateStatus(Namespace, { ...namespace, status: { ...status, conditions } })
}
