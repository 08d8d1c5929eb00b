import type { KubeObject, ObjectMeta, ResourceDefinition } from '../resources/define.ts'
import { ApiError } from './errors.ts'
import type { KvEntry } from './kv.ts'
import { detailsOf, nameIn } from './validate.ts'

/** etcd's limit on a request, which Kubernetes' users know as the limit on an object. */
const maxObjectBytes = 1.5 * 1024 * 1024

/** A stored object, without defaults, with its resourceVersion. */
export function stored<T extends KubeObject>(entry: Pick<KvEntry, 'value' | 'revision'>): T {
  return withRevision(JSON.parse(entry.value) as T, entry.revision)
}

export function withRevision<T extends KubeObject>(object: T, revision: bigint): T {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } }
}

/** The text that is stored. @throws ApiError RequestEntityTooLarge */
export function serialize(kind: ResourceDefinition, object: KubeObject): string {
  const { resourceVersion: _, ...metadata } = object.metadata
  const text = JSON.stringify({ ...object, metadata })
  if (Buffer.byteLength(text) <= maxObjectBytes) return text
  throw new ApiError(
    'RequestEntityTooLarge',
    `${nameIn(kind, metadata.name)} is too large: the limit is ${maxObjectBytes} bytes`,
    detailsOf(kind, metadata.name),
  )
}

/** What users may change in metadata; the rest stays as the system made it. */
export function keptMeta(before: ObjectMeta, next: ObjectMeta): ObjectMeta {
  const { labels, annotations, finalizers, ownerReferences } = next
  const { labels: _l, annotations: _a, finalizers: _f, ownerReferences: _o, ...system } = before
  return {
    ...system,
    ...(labels && { labels }),
    ...(annotations && { annotations }),
    ...(ownerReferences?.length && { ownerReferences }),
    ...(finalizers?.length && { finalizers }),
  }
}

/** With the label that objects of some kinds always have. */
export function withNameLabel({ nameLabel }: ResourceDefinition, metadata: ObjectMeta): ObjectMeta {
  const { name, labels } = metadata
  if (nameLabel === undefined || labels?.[nameLabel] === name) return metadata
  return { ...metadata, labels: { ...labels, [nameLabel]: name } }
}

/** All but metadata and status: what generation counts the changes of. */
export function specOf(object: KubeObject): unknown {
  const { metadata: _m, status: _s, ...rest } = object
  return rest
}
