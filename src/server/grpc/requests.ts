import { apiVersionOf } from '../../resources/define.ts'
import { isRecord } from '../../resources/prune.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError } from '../../store/errors.ts'
import { parseBody } from '../body.ts'
import { duplicateKeys } from '../duplicate-keys.ts'

/** The requests of vmservice.proto as they are decoded: what has presence there is absent here where it was not sent. */
export interface CreateVmRequest {
  readonly name: string
  readonly vcpus?: number
  readonly memory_mb?: number
  readonly namespace: string
  readonly labels: Readonly<Record<string, string>>
  readonly spec_json: string
}

export interface ById {
  readonly id: string
}

export interface ListVmsRequest {
  readonly namespace: string
  readonly label_selector: string
  readonly page_size: number
  readonly page_token: string
}

export interface WatchVmsRequest {
  readonly namespace: string
  readonly label_selector: string
  readonly resource_version: string
}

function bad(field: string, why: string, value?: unknown): ApiError {
  const shown = value === undefined ? '' : `Invalid value: ${JSON.stringify(value).slice(0, 100)}: `
  return new ApiError('BadRequest', `${field}: ${shown}${why}`)
}

/** A namespace as a request names it, none where it is empty. @throws ApiError BadRequest */
export function namespaceOf({ namespace }: { readonly namespace: string }): string | undefined {
  if (namespace === '') return undefined
  // A slash would reach into another one's keys.
  if (namespace.length <= 63 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(namespace)) return namespace
  throw bad('namespace', 'must be a DNS label of at most 63 characters', namespace)
}

/** A version to go on from, none where it is empty. @throws ApiError BadRequest */
export function versionOf({ resource_version }: WatchVmsRequest): string | undefined {
  if (resource_version === '') return undefined
  if (/^\d{1,18}$/.test(resource_version)) return resource_version
  throw bad('resource_version', 'must be from a list or an event', resource_version)
}

/** Which machines of a namespace a request means. @throws ApiError BadRequest */
export function scopeOf(request: { readonly namespace: string; readonly label_selector: string }) {
  const namespace = namespaceOf(request)
  const { label_selector: labelSelector } = request
  return { ...(namespace !== undefined && { namespace }), ...(labelSelector !== '' && { labelSelector }) }
}

/** The object that a CreateVm declares, not checked yet. @throws ApiError BadRequest, Invalid */
export function manifestOf({ name, labels, ...request }: CreateVmRequest): object {
  const { vcpus, memory_mb: memory } = request
  const { cpu, ...spec } = specOf(request.spec_json)
  if (vcpus === 0) throw bad('vcpus', 'must be at least 1', 0)
  if (memory !== undefined && 'memory' in spec) throw bad('spec_json', 'memory is said by memory_mb already')
  if (vcpus !== undefined && isRecord(cpu)) {
    const twice = ['cores', 'sockets', 'threads'].find((member) => Object.hasOwn(cpu, member))
    if (twice !== undefined) throw bad('spec_json', `cpu.${twice} is said by vcpus already`)
  }
  const processors =
    vcpus === undefined || !(cpu === undefined || isRecord(cpu)) ? cpu : { ...cpu, cores: vcpus }
  return {
    apiVersion: apiVersionOf(VirtualMachine),
    kind: VirtualMachine.kind,
    metadata: { name, ...(Object.keys(labels).length > 0 && { labels }) },
    spec: {
      ...spec,
      ...(processors !== undefined && { cpu: processors }),
      ...(memory !== undefined && { memory: `${memory}Mi` }),
    },
  }
}

/** The object that a JSON text holds; an empty one where there is no text. @throws ApiError BadRequest */
function specOf(json: string): Record<string, unknown> {
  let spec: unknown
  try {
    spec = parseBody(Buffer.from(json), 'application/json') ?? {}
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    throw new ApiError(error.reason, `spec_json: ${error.message.replace('the body', 'it')}`)
  }
  if (isRecord(spec)) return spec
  throw bad('spec_json', 'must be a JSON object: the spec of a VirtualMachine')
}

/** Paths of what stands more than once in the spec of a CreateVm. */
export function duplicatesOf({ spec_json: json }: CreateVmRequest): readonly string[] {
  return json === '' ? [] : duplicateKeys(json, JSON.parse(json)).map((path) => `spec.${path}`)
}
