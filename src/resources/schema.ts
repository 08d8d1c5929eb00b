import { z } from 'zod'
import type { ResourceDefinition } from './define.ts'
import { quantityPattern } from './quantity.ts'

/** A Kubernetes structural schema (apiextensions.k8s.io/v1 JSONSchemaProps), as far as our kinds need it. */
export interface StructuralSchema {
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean'
  readonly description?: string
  readonly format?: string
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly minProperties?: number
  readonly nullable?: boolean
  readonly properties?: Readonly<Record<string, StructuralSchema>>
  readonly additionalProperties?: StructuralSchema
  readonly items?: StructuralSchema
  readonly required?: readonly string[]
  readonly 'x-kubernetes-int-or-string'?: boolean
  readonly 'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map'
  readonly 'x-kubernetes-list-map-keys'?: readonly string[]
  readonly 'x-kubernetes-validations'?: readonly CelRule[]
}

interface CelRule {
  readonly rule: string
  readonly message: string
  readonly fieldPath?: string
}

type Json = Readonly<Record<string, unknown>>

const types: ReadonlySet<unknown> = new Set(['object', 'array', 'string', 'integer', 'number', 'boolean'])
const listKeys = ['x-kubernetes-list-type', 'x-kubernetes-list-map-keys'] as const
const copied = [
  ...(['description', 'default', 'enum', 'minLength', 'maxLength', 'minItems', 'maxItems'] as const),
  'minProperties' as const,
  ...listKeys,
]
/** Formats that an API server knows too; zod's own (`starts_with`, `regex`) are said by `pattern`. */
const formats: ReadonlySet<unknown> = new Set(['ipv4', 'ipv6', 'date-time', 'uuid', 'byte'])
/** Members we know and either translate or can leave out without loss. */
const understood: ReadonlySet<string> = new Set([
  ...copied,
  ...['$schema', 'type', 'format', 'pattern', 'minimum', 'maximum', 'properties', 'additionalProperties'],
  ...['propertyNames', 'items', 'required', 'intOrString'],
])

function scalarType(json: Json, at: string): Pick<StructuralSchema, 'type' | 'nullable'> {
  const { type } = json
  if (types.has(type)) return { type: type as NonNullable<StructuralSchema['type']> }
  if (Array.isArray(type) && type.length === 2 && type.includes('null')) {
    return { ...scalarType({ type: type.find((one) => one !== 'null') }, at), nullable: true }
  }
  throw new TypeError(`${at}: a structural schema needs one type here, not ${JSON.stringify(type)}`)
}

function bounds(json: Json): Pick<StructuralSchema, 'minimum' | 'maximum'> {
  const { minimum, maximum } = json
  return {
    // An integer without bounds comes with those of a double, which say nothing.
    ...(typeof minimum === 'number' && minimum > Number.MIN_SAFE_INTEGER ? { minimum } : {}),
    ...(typeof maximum === 'number' && maximum < Number.MAX_SAFE_INTEGER ? { maximum } : {}),
  }
}

function children(json: Json, at: string): Partial<StructuralSchema> {
  const { properties, additionalProperties, items, required } = json
  const each = Object.entries((properties ?? {}) as Record<string, Json>)
  return {
    ...(properties
      ? {
          properties: Object.fromEntries(each.map(([name, one]) => [name, structural(one, `${at}.${name}`)])),
        }
      : {}),
    ...(typeof additionalProperties === 'object'
      ? { additionalProperties: structural(additionalProperties as Json, `${at}.*`) }
      : {}),
    ...(items ? { items: structural(items as Json, `${at}[]`) } : {}),
    ...(Array.isArray(required) && required.length > 0 ? { required: required as string[] } : {}),
  }
}

function structural(json: Json, at: string): StructuralSchema {
  const foreign = Object.keys(json).find((key) => !understood.has(key))
  if (foreign) throw new TypeError(`${at}: ${foreign} has no place in a structural schema`)
  const kept = Object.fromEntries(
    copied.filter((key) => json[key] !== undefined).map((key) => [key, json[key]]),
  )
  if (json['intOrString'])
    return { ...kept, 'x-kubernetes-int-or-string': true, pattern: quantityPattern, minimum: 0 }
  return {
    ...scalarType(json, at),
    ...kept,
    // With a format an API server takes lists for texts, too; a pattern says as much.
    ...(formats.has(json['format']) && json['pattern'] === undefined
      ? { format: json['format'] as string }
      : {}),
    ...(json['type'] === 'integer' ? { format: 'int64' } : {}),
    ...(typeof json['pattern'] === 'string' ? { pattern: json['pattern'] } : {}),
    ...bounds(json),
    ...children(json, at),
  }
}

/**
 * The structural schema of a kind's members besides apiVersion, kind and metadata.
 * @throws TypeError naming the place of a construct that Kubernetes' structural schemas cannot say (unions, tuples, any)
 */
export function bodySchema(kind: Pick<ResourceDefinition, 'kind' | 'body'>): StructuralSchema {
  // `any` lets the custom quantity type through; whatever else became an empty schema is refused for its missing type.
  const json = z.toJSONSchema(kind.body, { io: 'input', unrepresentable: 'any', target: 'draft-7' })
  return structural(json as Json, kind.kind)
}

/** For `.meta()` of a list of objects that are told apart by these members, and merged one by one when applied. */
export function listOf(...keys: string[]) {
  return { 'x-kubernetes-list-type': 'map' as const, 'x-kubernetes-list-map-keys': keys }
}
