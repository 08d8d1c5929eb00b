import type { Clock } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject } from '../resources/define.ts'
import { type Cause, unknownIn } from '../resources/parse.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError } from '../store/errors.ts'
import type { Ref, TextStore } from '../store/objects.ts'
import type { Form, Syntax } from './accept.ts'
import { tracking } from './field-manager.ts'
import type { ResourcePath } from './path.ts'
import { isDryRun, parameter } from './query.ts'
import { shown } from './status.ts'

export interface HandlerDeps {
  readonly objects: TextStore
  readonly clock: Clock
  readonly newId: () => string
}

/** One call on a resource. */
export interface Call {
  readonly method: string
  readonly path: ResourcePath
  readonly query: URLSearchParams
  /** Of the only object that is meant, whatever has its name by now; an action is refused for any other. */
  readonly uid?: string
  readonly body: unknown
  /** Paths of what stands more than once in the body; worked out when asked for. */
  readonly duplicates: () => readonly string[]
  readonly contentType: string
  readonly form: Form
  /** How the answer is to be written: a list that is not JSON is answered as a value. */
  readonly syntax?: Syntax
  /** The User-Agent header. */
  readonly userAgent?: string
}

export interface Answer {
  readonly code: number
  /** A string, or a stream, is JSON text already; no answer in YAML is one. */
  readonly body: unknown
  readonly warnings?: readonly string[]
}

export function methodNotAllowed(): ApiError {
  return new ApiError('MethodNotAllowed', 'the server does not allow this method on the requested resource')
}

export function refOf({ path }: { readonly path: ResourcePath }): Ref {
  return { name: path.name ?? '', ...(path.namespace !== undefined && { namespace: path.namespace }) }
}

/** The object a body holds, its place checked against the path. @throws ApiError BadRequest */
export function objectOf(call: Call, body: unknown): KubeObject {
  if (!isRecord(body)) throw new ApiError('BadRequest', 'the body must be an object')
  const { kind, namespace, name } = call.path
  // A kind that has none is not asked for one, and an empty one is none.
  const { namespace: said, ...metadata } = isRecord(body['metadata']) ? body['metadata'] : {}
  if (namespace !== undefined && said && said !== namespace) {
    throw new ApiError(
      'BadRequest',
      `the namespace of the object (${shown(said)}) does not match the namespace on the request (${namespace})`,
    )
  }
  if (name !== undefined && metadata['name'] !== undefined && metadata['name'] !== name) {
    throw new ApiError(
      'BadRequest',
      `the name of the object (${shown(metadata['name'])}) does not match the name on the URL (${name})`,
    )
  }
  const place = { ...(namespace !== undefined && { namespace }), ...(name !== undefined && { name }) }
  return {
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    ...body,
    metadata: { ...metadata, ...place } as KubeObject['metadata'],
  }
}

/**
 * Unknown and repeated fields, by fieldValidation: refused, warned of, or nothing (Kubernetes' default is Warn).
 * @throws ApiError BadRequest
 */
export function unknownFields(call: Call, object: KubeObject): string[] {
  const mode = parameter(call.query, 'fieldValidation') || 'Warn'
  if (!['Ignore', 'Warn', 'Strict'].includes(mode)) {
    throw new ApiError(
      'BadRequest',
      `fieldValidation: Unsupported value: "${mode}": supported values: "Ignore", "Strict", "Warn"`,
    )
  }
  if (mode === 'Ignore') return []
  const found = [
    ...call.duplicates().map((field) => ({ field, message: 'duplicate field' })),
    ...unknownIn(call.path.kind, object).map((field) => ({ field, message: 'unknown field' })),
  ]
  const texts = found.map(({ field, message }) => `${message} "${field}"`)
  if (mode === 'Warn' || texts.length === 0) return texts
  const causes: Cause[] = found.map((one) => ({ reason: 'FieldValueInvalid', ...one }))
  const { kind, version } = call.path.kind
  throw new ApiError(
    'BadRequest',
    `${kind} in version "${version}" cannot be handled as a ${kind}: strict decoding error: ${texts.join(', ')}`,
    { causes },
  )
}

/** Replaces the object, or its status where that is what the path names. */
export function write(call: Call, object: KubeObject, deps: HandlerDeps): Promise<KubeObject> {
  const given = object.metadata.managedFields
  const options = { dryRun: isDryRun(call.query), managedFields: tracking(call, deps.clock, given) }
  const { kind, subresource } = call.path
  return subresource === 'status'
    ? deps.objects.updateStatus(kind, object, options)
    : deps.objects.update(kind, object, options)
}
