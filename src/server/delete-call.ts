import type { ResourceDefinition } from '../resources/define.ts'
import { Namespace } from '../resources/kinds.ts'
import { isHeld } from '../store/deletion.ts'
import { isReason } from '../store/errors.ts'
import { type Answer, type Call, type HandlerDeps, methodNotAllowed, refOf } from './call.ts'
import { deleteOptionsOf } from './delete-options.ts'
import { inLanes } from './lanes.ts'
import { chosen } from './list-call.ts'
import { refuseKeptNamespace } from './namespace-calls.ts'
import { listHead } from './show.ts'

/** Deletions of a collection under way at once: they share the store's flushes, and leave room for other requests. */
const deleteLanes = 100

/** Deletes one object. Kubernetes answers with it while finalizers hold it, and with a Status when it is gone. */
export async function remove(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind } = call.path
  if (kind === (Namespace as ResourceDefinition)) refuseKeptNamespace(call.path.name ?? '')
  const object = await deps.objects.delete(kind, refOf(call), deleteOptionsOf(call.body, call.query))
  if (isHeld(kind, object)) return { code: 200, body: object }
  const { name, uid } = object.metadata
  const details = { name, group: kind.group, kind: kind.plural, uid }
  return { code: 200, body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details } }
}

/** Deletes what the selectors choose; what is gone meanwhile is no error. */
export async function removeCollection(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind } = call.path
  // As in Kubernetes: namespaces go one by one.
  if (kind === (Namespace as ResourceDefinition)) throw methodNotAllowed()
  const { dryRun = false, propagation } = deleteOptionsOf(call.body, call.query)
  // Whatever a list of the same query would show.
  const page = await chosen(call, deps)
  const { items } = page
  await inLanes(items, deleteLanes, async ({ metadata }) => {
    const { name, uid } = metadata
    const ref = { name, ...(metadata.namespace !== undefined && { namespace: metadata.namespace }) }
    // The uid makes sure that it is what was chosen, not a newcomer of the same name.
    const options = { ...(uid !== undefined && { uid }), dryRun, ...(propagation && { propagation }) }
    await deps.objects.delete(kind, ref, options).catch((error: unknown) => {
      if (!isReason(error, 'NotFound') && !isReason(error, 'Conflict')) throw error
    })
  })
  return { code: 200, body: { ...listHead(kind, page), items } }
}
