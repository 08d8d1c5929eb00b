import { accessKeyName } from '../resources/access-key.ts'
import type { KubeObject, ObjectMeta, ResourceDefinition } from '../resources/define.ts'
import type { Cause } from '../resources/parse.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError } from './errors.ts'

const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
/** Kubernetes' path segment name, in printable ASCII. */
const pathSegment = /^(?!\.{1,2}$)[!-$&-.0-~]+$/
const nameForms = {
  subdomain: [subdomain, 'must be a DNS subdomain: lower-case letters, digits, - and ., at most 253'],
  segment: [pathSegment, 'must be printable ASCII without / and %, at most 253 characters'],
  key: [
    accessKeyName,
    'must be lower-case letters, digits and -, at most 63: the id of a key in small letters',
  ],
} as const
const dnsLabel = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
/** Kubernetes' qualified name: of labels, annotations and finalizers. */
const qualifiedName = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const isQualifiedName = (text: string) => text.length <= 317 && qualifiedName.test(text)
const labelValue = /^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/
const annotationsLimit = 256 * 1024

/** `virtualmachines.plasmavmc.io "web"`, as Kubernetes names an object in a message. */
export function nameIn(kind: ResourceDefinition, name: string): string {
  return `${kind.plural}${kind.group === '' ? '' : `.${kind.group}`} "${name}"`
}

export function detailsOf(kind: ResourceDefinition, name: string) {
  return { group: kind.group, kind: kind.plural, name }
}

/** Kubernetes' 422 with all causes in its message and details. */
export function invalid(
  kind: Pick<ResourceDefinition, 'kind' | 'group'>,
  name: string,
  causes: readonly Cause[],
): ApiError {
  const texts = causes.map((cause) =>
    cause.field === '' ? cause.message : `${cause.field}: ${cause.message}`,
  )
  const list = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`
  const full = `${kind.kind}${kind.group === '' ? '' : `.${kind.group}`} "${name}" is invalid: ${list}`
  return new ApiError('Invalid', full, { group: kind.group, kind: kind.kind, name, causes })
}

function bad(field: string, value: unknown, message: string): Cause {
  return {
    reason: 'FieldValueInvalid',
    field,
    message: `Invalid value: ${JSON.stringify(value).slice(0, 300)}: ${message}`,
  }
}

/** The texts of a map; what is of another type is the schema's finding. */
function textsOf(map: unknown): [string, string][] {
  if (!isRecord(map)) return []
  return Object.entries(map).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
}

function nameCauses(kind: ResourceDefinition, { name, namespace }: ObjectMeta): Cause[] {
  const causes: Cause[] = []
  if (!name)
    causes.push({
      reason: 'FieldValueRequired',
      field: 'metadata.name',
      message: 'Required value: name or generateName is required',
    })
  else if (typeof name === 'string') {
    const [form, why] = nameForms[kind.names ?? 'subdomain']
    if (name.length > 253 || !form.test(name)) causes.push(bad('metadata.name', name, why))
  }
  if (kind.namespaced && !namespace)
    causes.push({ reason: 'FieldValueRequired', field: 'metadata.namespace', message: 'Required value' })
  // A `/` in a namespace would reach into another one's keys.
  if (kind.namespaced && namespace && (namespace.length > 63 || !dnsLabel.test(namespace)))
    causes.push(bad('metadata.namespace', namespace, 'must be a DNS label of at most 63 characters'))
  if (!kind.namespaced && namespace)
    causes.push(bad('metadata.namespace', namespace, 'must not be set: the kind is cluster-scoped'))
  return causes
}

const blank = (member: string) => ({ member, why: 'must not be empty' })

/** What Kubernetes does not take for an owner. */
function ownerCauses(references: unknown): Cause[] {
  const owners = Array.isArray(references) ? references.filter(isRecord) : []
  const causes = owners.flatMap((owner, index) => {
    const { apiVersion, kind } = owner
    const wrong = ['kind', 'name', 'uid'].filter((member) => owner[member] === '').map(blank)
    if (typeof apiVersion === 'string' && !/^([^/]+\/)?[^/]+$/.test(apiVersion))
      wrong.push({ member: 'apiVersion', why: 'must be a version, with its group before it' })
    if (apiVersion === 'v1' && kind === 'Event') wrong.push({ member: 'kind', why: 'an Event owns nothing' })
    return wrong.map(({ member, why }) =>
      bad(`metadata.ownerReferences[${index}].${member}`, owner[member], why),
    )
  })
  const controllers = owners.filter(({ controller }) => controller === true).map(({ name }) => name)
  return controllers.length < 2
    ? causes
    : [...causes, bad('metadata.ownerReferences', controllers, 'only one owner can be the controller')]
}

/** Two words on what becomes of what an object owns. */
function policyCauses(finalizers: unknown): Cause[] {
  const both = ['orphan', 'foregroundDeletion']
  const given = Array.isArray(finalizers) ? finalizers : []
  return both.every((name) => given.includes(name))
    ? [bad('metadata.finalizers', given, `${both.join(' and ')} cannot be both set`)]
    : []
}

/** Findings in metadata as it came: names, labels, annotations, finalizers. Types are the schema's to check. */
export function metadataCauses(kind: ResourceDefinition, object: KubeObject): Cause[] {
  const metadata: ObjectMeta = isRecord(object.metadata) ? object.metadata : { name: '' }
  const causes = nameCauses(kind, metadata)
  for (const [key, text] of textsOf(metadata.labels)) {
    if (!isQualifiedName(key)) causes.push(bad('metadata.labels', key, 'is no label name'))
    else if (!labelValue.test(text))
      causes.push(bad('metadata.labels', text, 'must be at most 63 letters, digits, -, _ and .'))
  }
  const annotations = textsOf(metadata.annotations)
  for (const [key] of annotations) {
    // Kubernetes takes upper-case prefixes here, too.
    if (!isQualifiedName(key.toLowerCase()))
      causes.push(bad('metadata.annotations', key, 'is no annotation name'))
  }
  for (const finalizer of Array.isArray(metadata.finalizers) ? metadata.finalizers : []) {
    if (typeof finalizer === 'string' && !isQualifiedName(finalizer))
      causes.push(bad('metadata.finalizers', finalizer, 'is no finalizer name'))
  }
  causes.push(...ownerCauses(metadata.ownerReferences), ...policyCauses(metadata.finalizers))
  const size = annotations.reduce((sum, [key, text]) => sum + key.length + text.length, 0)
  if (size > annotationsLimit) {
    causes.push({
      reason: 'FieldValueTooLong',
      field: 'metadata.annotations',
      message: `Too long: may not be more than ${annotationsLimit} bytes`,
    })
  }
  return causes
}

/** Finalizers that an update adds while the object is being deleted: nobody would wait for them. */
export function finalizerCauses(before: KubeObject, next: KubeObject): Cause[] {
  if (before.metadata.deletionTimestamp === undefined) return []
  const had = before.metadata.finalizers ?? []
  const fresh = (next.metadata.finalizers ?? []).filter((name) => !had.includes(name))
  if (fresh.length === 0) return []
  const why = 'no new finalizers can be added if the object is being deleted'
  const message = `Forbidden: ${why}, found new finalizers ${JSON.stringify(fresh)}`
  return [{ reason: 'FieldValueForbidden', field: 'metadata.finalizers', message }]
}
