import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { ApiError } from './errors.ts'
import { detailsOf, nameIn } from './validate.ts'

/** Kubernetes' 409 of optimistic locking, or of a precondition where `why` says so. */
export function conflict(kind: ResourceDefinition, name: string, why?: string): ApiError {
  const text =
    why ?? 'the object has been modified; please apply your changes to the latest version and try again'
  return new ApiError(
    'Conflict',
    `Operation cannot be fulfilled on ${nameIn(kind, name)}: ${text}`,
    detailsOf(kind, name),
  )
}

export function notFound(kind: ResourceDefinition, name: string): ApiError {
  return new ApiError('NotFound', `${nameIn(kind, name)} not found`, detailsOf(kind, name))
}

export function alreadyExists(kind: ResourceDefinition, name: string): ApiError {
  return new ApiError('AlreadyExists', `${nameIn(kind, name)} already exists`, detailsOf(kind, name))
}

/** @throws ApiError Conflict where the object is not the one, or not the version, that the caller means */
export function checkPreconditions(
  kind: ResourceDefinition,
  object: KubeObject,
  wanted: { readonly uid?: string | undefined; readonly resourceVersion?: string | undefined },
): void {
  const { uid, resourceVersion, name } = object.metadata
  if (wanted.uid !== undefined && wanted.uid !== uid) {
    throw conflict(
      kind,
      name,
      `the UID in the precondition (${wanted.uid}) does not match the UID in record (${uid})`,
    )
  }
  if (wanted.resourceVersion !== undefined && wanted.resourceVersion !== resourceVersion)
    throw conflict(kind, name)
}
