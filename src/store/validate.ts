import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import type { Cause } from '../resources/parse.ts'
import { ApiError } from './errors.ts'

const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const dnsLabel = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const labelKey = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
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
export function invalid(kind: ResourceDefinition, name: string, causes: readonly Cause[]): ApiError {
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
    message: `Invalid value: ${JSON.stringify(value)}: ${message}`,
  }
}

/** Findings in metadata: names, labels, annotations. */
export function metadataCauses(kind: ResourceDefinition, object: KubeObject): Cause[] {
  const { name, namespace, labels = {}, annotations = {} } = object.metadata
  const causes: Cause[] = []
  if (!name)
    causes.push({
      reason: 'FieldValueRequired',
      field: 'metadata.name',
      message: 'Required value: name or generateName is required',
    })
  else if (name.length > 253 || !subdomain.test(name)) {
    causes.push(
      bad('metadata.name', name, 'must be a DNS subdomain: lower-case letters, digits, - and ., at most 253'),
    )
  }
  if (kind.namespaced && !namespace)
    causes.push({ reason: 'FieldValueRequired', field: 'metadata.namespace', message: 'Required value' })
  // A `/` in a namespace would reach into another one's keys.
  if (kind.namespaced && namespace && (namespace.length > 63 || !dnsLabel.test(namespace)))
    causes.push(bad('metadata.namespace', namespace, 'must be a DNS label of at most 63 characters'))
  if (!kind.namespaced && namespace)
    causes.push(bad('metadata.namespace', namespace, 'must not be set: the kind is cluster-scoped'))
  for (const [key, text] of Object.entries(labels)) {
    if (key.length > 317 || !labelKey.test(key)) causes.push(bad('metadata.labels', key, 'is no label name'))
    else if (!labelValue.test(text))
      causes.push(bad('metadata.labels', text, 'must be at most 63 letters, digits, -, _ and .'))
  }
  const size = Object.entries(annotations).reduce((sum, [key, text]) => sum + key.length + text.length, 0)
  if (size > annotationsLimit) {
    causes.push({
      reason: 'FieldValueTooLong',
      field: 'metadata.annotations',
      message: `Too long: may not be more than ${annotationsLimit} bytes`,
    })
  }
  return causes
}
