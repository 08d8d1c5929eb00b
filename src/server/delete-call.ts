import { apiVersionOf, type ResourceDefinition } from '../resources/define.ts'
import { Event, kinds, Namespace } from '../resources/kinds.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError, isReason } from '../store/errors.ts'
import type { DeleteOptions } from '../store/objects.ts'
import { detailsOf, nameIn } from '../store/validate.ts'
import { type Answer, type Call, type HandlerDeps, methodNotAllowed, refOf } from './call.ts'
import { inLanes } from './lanes.ts'
import { isDryRun, parameter, parseFieldSelector } from './query.ts'
import { shown } from './status.ts'

/** Deletions of a collection under way at once: they share the store's flushes, and leave room for other requests. */
const deleteLanes = 100

/** DeleteOptions (meta/v1) of the body and the query. @throws ApiError BadRequest */
function optionsOf({ body = {}, query }: Call): DeleteOptions {
  if (!isRecord(body)) throw new ApiError('BadRequest', 'the body must be DeleteOptions')
  const { preconditions = {}, dryRun = [] } = body
  if (!isRecord(preconditions)) throw new ApiError('BadRequest', 'preconditions: must be an object')
  if (!Array.isArray(dryRun) || dryRun.some((value) => value !== 'All'))
    throw new ApiError('BadRequest', 'dryRun: Unsupported value: supported values: "All"')
  const { uid, resourceVersion } = preconditions
  return {
    ...(uid != null && { uid: shown(uid) }),
    ...(resourceVersion != null && { resourceVersion: shown(resourceVersion) }),
    dryRun: dryRun.length > 0 || isDryRun(query),
  }
}

/**
 * A namespace with something in it stays: what is in it would be out of sight, and run on. @throws ApiError Forbidden,
 * Conflict
 */
async function refuseUsedNamespace(name: string, { objects }: HandlerDeps): Promise<void> {
  const details = detailsOf(Namespace, name)
  if (name === 'default')
    throw new ApiError(
      'Forbidden',
      'namespaces "default" is forbidden: this namespace may not be deleted',
      details,
    )
  for (const kind of kinds.filter((one) => one.namespaced && one !== (Event as ResourceDefinition))) {
    const { items } = await objects.list(kind, { namespace: name, limit: 1 })
    const [first] = items
    if (!first) continue
    const what = nameIn(kind, first.metadata.name)
    throw new ApiError(
      'Conflict',
      `namespaces "${name}" is not empty: it has ${what}; delete that first`,
      details,
    )
  }
}

/** Deletes one object. Kubernetes answers with it while finalizers hold it, and with a Status when it is gone. */
export async function remove(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind } = call.path
  if (kind === (Namespace as ResourceDefinition)) await refuseUsedNamespace(call.path.name ?? '', deps)
  const object = await deps.objects.delete(kind, refOf(call), optionsOf(call))
  if (object.metadata.finalizers?.length) return { code: 200, body: object }
  const { name, uid } = object.metadata
  const details = { name, group: kind.group, kind: kind.plural, uid }
  return { code: 200, body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details } }
}

/** Deletes what the selectors choose; what is gone meanwhile is no error. */
export async function removeCollection(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind, namespace } = call.path
  // As in Kubernetes: namespaces go one by one.
  if (kind === (Namespace as ResourceDefinition)) throw methodNotAllowed()
  const { dryRun = false } = optionsOf(call)
  const labelSelector = parameter(call.query, 'labelSelector')
  const page = await deps.objects.list(kind, {
    ...(namespace !== undefined && { namespace }),
    ...(labelSelector && { labelSelector }),
  })
  const items = page.items.filter(parseFieldSelector(parameter(call.query, 'fieldSelector')))
  await inLanes(items, deleteLanes, async ({ metadata }) => {
    const { name, uid } = metadata
    const ref = { name, ...(metadata.namespace !== undefined && { namespace: metadata.namespace }) }
    // The uid makes sure that it is what was chosen, not a newcomer of the same name.
    const options = { ...(uid !== undefined && { uid }), dryRun }
    await deps.objects.delete(kind, ref, options).catch((error: unknown) => {
      if (!isReason(error, 'NotFound') && !isReason(error, 'Conflict')) throw error
    })
  })
  const metadata = { resourceVersion: page.resourceVersion }
  return {
    code: 200,
    body: { apiVersion: apiVersionOf(kind), kind: `${kind.kind}List`, metadata, items },
  }
}
