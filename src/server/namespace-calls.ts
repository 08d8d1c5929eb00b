import type { ResourceDefinition } from '../resources/define.ts'
import { systemNamespace } from '../resources/host-lease.ts'
import { Namespace } from '../resources/kinds.ts'
import { ApiError } from '../store/errors.ts'
import type { WriteOptions } from '../store/objects.ts'
import { detailsOf, nameIn } from '../store/validate.ts'
import { type Answer, type Call, type HandlerDeps, objectOf } from './call.ts'
import { isDryRun } from './query.ts'

/** Namespaces that everybody, or the system itself, relies on. */
const kept: readonly string[] = ['default', systemNamespace]

/** @throws ApiError Forbidden */
export function refuseKeptNamespace(name: string): void {
  if (!kept.includes(name)) return
  const why = 'this namespace may not be deleted'
  throw new ApiError('Forbidden', `namespaces "${name}" is forbidden: ${why}`, detailsOf(Namespace, name))
}

/**
 * The namespace that something is to be created in, and its version, which must not change until then.
 * @throws ApiError NotFound; Forbidden where it is being deleted
 */
export async function openNamespace(
  namespace: string,
  kind: ResourceDefinition,
  name: string,
  { objects }: HandlerDeps,
): Promise<NonNullable<WriteOptions['within']>> {
  const { metadata } = await objects.get(Namespace, { name: namespace })
  const { resourceVersion = '', deletionTimestamp } = metadata
  if (deletionTimestamp === undefined) return { name: namespace, resourceVersion }
  const why = `unable to create new content in namespace ${namespace} because it is being terminated`
  throw new ApiError('Forbidden', `${nameIn(kind, name)} is forbidden: ${why}`, {
    ...detailsOf(kind, name),
    causes: [
      {
        reason: 'NamespaceTerminating',
        field: 'metadata.namespace',
        message: `namespace ${namespace} is being terminated`,
      },
    ],
  })
}

/** `PUT …/namespaces/NAME/finalize`: what is to be done before the namespace goes, by whoever has done their part. */
export async function finalize(call: Call, deps: HandlerDeps): Promise<Answer> {
  const options = { dryRun: isDryRun(call.query), finalize: true }
  return {
    code: 200,
    body: await deps.objects.update(call.path.kind, objectOf(call, call.body), options),
  }
}
