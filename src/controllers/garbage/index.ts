import type { Log } from '../../lib/log.ts'
import type { KubeObject, OwnerReference, ResourceDefinition } from '../../resources/define.ts'
import type { Outcome } from '../../runtime/controller.ts'
import { foregroundFinalizer, orphanFinalizer } from '../../store/deletion.ts'
import { isReason } from '../../store/errors.ts'
import type { DeleteOptions, ObjectStore } from '../../store/objects.ts'
import { type Graph, ownerPlace, type Place, placeOf } from './graph.ts'

export interface GarbageDeps {
  readonly objects: ObjectStore
  /** Kinds whose objects own and are owned. */
  readonly kinds: readonly ResourceDefinition[]
  readonly graph: Graph
  /** Puts a key into the queue. */
  readonly add: (key: string) => void
  readonly log: Log
}

const done: Outcome = { next: 'done' }
/** How long an object waits for the first lists of all kinds. */
const unsyncedMs = 200

/**
 * Looks at one object: deletes it where all its owners are gone, and lets go of it where it is being deleted and nothing
 * that it waits for is left. Whatever can't be read is an error, never absence. @throws ApiError
 */
export async function collect(key: string, deps: GarbageDeps): Promise<Outcome> {
  const place = placeOf(key, deps.kinds)
  const object = place && (await read(place, deps))
  if (!place || !object) return done
  const { deletionTimestamp, finalizers = [], ownerReferences = [] } = object.metadata
  if (deletionTimestamp === undefined) {
    if (ownerReferences.length > 0) await judge(place, object, deps)
    return done
  }
  if (finalizers.includes(orphanFinalizer)) await orphan(place, object, deps)
  else if (finalizers.includes(foregroundFinalizer)) return afterDependents(place, object, deps)
  return done
}

/** The object as it is stored; undefined only where the store says that there is none. */
async function read({ kind, ref }: Place, { objects }: GarbageDeps): Promise<KubeObject | undefined> {
  try {
    return await objects.get(kind, ref)
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

/** There; gone; being deleted, after what it owns; or nobody here can tell. */
type OwnerState = 'there' | 'absent' | 'waiting' | 'unknown'

async function stateOf(owner: OwnerReference, place: Place, deps: GarbageDeps): Promise<OwnerState> {
  const at = ownerPlace(owner, place, deps.kinds)
  if (!at) return 'unknown'
  const object = await read(at, deps)
  if (object?.metadata.uid !== owner.uid) return 'absent'
  const { deletionTimestamp, finalizers = [] } = object.metadata
  return deletionTimestamp !== undefined && finalizers.includes(foregroundFinalizer) ? 'waiting' : 'there'
}

/** Deletes an object that no owner is left of; takes from one that has an owner left those that are gone or going. */
async function judge(place: Place, object: KubeObject, deps: GarbageDeps): Promise<void> {
  const { ownerReferences: owners = [], uid = '' } = object.metadata
  const states = await Promise.all(owners.map((owner) => stateOf(owner, place, deps)))
  const left = owners.filter((_, i) => states[i] === 'there' || states[i] === 'unknown')
  if (left.length === owners.length) return
  if (left.length > 0) return write(place, object, { ownerReferences: left }, deps)
  const dependents = states.includes('waiting') ? deps.graph.dependents(uid) : []
  // Two that wait for each other would wait for ever.
  if (dependents.some(([, kin]) => kin.foreground) && owners.some((one) => one.blockOwnerDeletion)) {
    const unblocked = owners.map((owner) => ({ ...owner, blockOwnerDeletion: false }))
    return write(place, object, { ownerReferences: unblocked }, deps)
  }
  await remove(place, object, dependents.length > 0 ? 'Foreground' : undefined, deps)
}

async function remove(
  { kind, ref }: Place,
  object: KubeObject,
  propagation: DeleteOptions['propagation'],
  { objects, log }: GarbageDeps,
): Promise<void> {
  const { uid, resourceVersion, ownerReferences } = object.metadata
  // Exactly what was judged: one that got an owner meanwhile stays.
  const options = {
    ...(uid !== undefined && { uid }),
    ...(resourceVersion !== undefined && { resourceVersion }),
    ...(propagation && { propagation }),
  }
  log.info('deleting what has no owner any more', { kind: kind.kind, ...ref, uid, owners: ownerReferences })
  await objects.delete(kind, ref, options).catch((error: unknown) => {
    if (!isReason(error, 'NotFound')) throw error
  })
}

/** One that is being deleted after what it owns goes when nothing that blocks it is left. */
async function afterDependents(place: Place, object: KubeObject, deps: GarbageDeps): Promise<Outcome> {
  const { graph, add } = deps
  if (!graph.synced) return { next: 'wait', ms: unsyncedMs }
  const { uid = '', finalizers = [] } = object.metadata
  const dependents = graph.dependents(uid)
  const blocks = (owner: OwnerReference) => owner.uid === uid && owner.blockOwnerDeletion === true
  if (!dependents.some(([, kin]) => kin.owners.some(blocks))) {
    const others = finalizers.filter((name) => name !== foregroundFinalizer)
    await write(place, object, { finalizers: others }, deps)
  } else for (const [key] of dependents) add(key)
  return done
}

/**
 * Takes an owner that is being deleted from all that name it, then lets go of it. They are looked for in the store itself:
 * one that was missed would be deleted.
 */
async function orphan({ kind, ref }: Place, object: KubeObject, deps: GarbageDeps): Promise<void> {
  const { uid, finalizers = [] } = object.metadata
  const scope = kind.namespaced && ref.namespace !== undefined ? { namespace: ref.namespace } : {}
  for (const one of deps.kinds.filter((other) => other.namespaced || !kind.namespaced)) {
    const { items } = await deps.objects.list(one, scope)
    for (const item of items) {
      const owners = item.metadata.ownerReferences ?? []
      const others = owners.filter((owner) => owner.uid !== uid)
      if (others.length < owners.length)
        await write({ kind: one, ref: item.metadata }, item, { ownerReferences: others }, deps)
    }
  }
  const others = finalizers.filter((name) => name !== orphanFinalizer)
  await write({ kind, ref }, object, { finalizers: others }, deps)
}

/** Changes metadata of the very version that was read. */
async function write(
  { kind }: Place,
  object: KubeObject,
  change: Pick<Partial<KubeObject['metadata']>, 'finalizers' | 'ownerReferences'>,
  { objects }: GarbageDeps,
): Promise<void> {
  await objects
    .update(kind, { ...object, metadata: { ...object.metadata, ...change } })
    .catch((error: unknown) => {
      if (!isReason(error, 'NotFound')) throw error
    })
}
