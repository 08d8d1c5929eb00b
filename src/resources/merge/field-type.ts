import { objectSchema } from '../crd.ts'
import type { ResourceDefinition } from '../define.ts'
import type { StructuralSchema } from '../schema.ts'

/**
 * How a value is owned and merged, after the `x-kubernetes-list-type` and `x-kubernetes-map-type` of Kubernetes'
 * schemas. What is atomic is one leaf, whatever is in it.
 */
export type FieldType =
  | { readonly as: 'leaf' }
  /** An object with known members, or a map whose members are all of one type. */
  | { readonly as: 'map'; readonly members: ReadonlyMap<string, FieldType>; readonly others?: FieldType }
  /** A list of scalars, each at most once. */
  | { readonly as: 'set' }
  /** A list of objects told apart by the members `keys`; `defaults` of those that need not be said. */
  | {
      readonly as: 'list'
      readonly keys: readonly string[]
      readonly defaults: Readonly<Record<string, unknown>>
      readonly item: FieldType
    }

const leaf: FieldType = { as: 'leaf' }
const texts: FieldType = { as: 'map', members: new Map(), others: leaf }

/** Kubernetes' ObjectMeta, as its own schema has it. */
const metadata: FieldType = {
  as: 'map',
  members: new Map<string, FieldType>([
    ['labels', texts],
    ['annotations', texts],
    ['finalizers', { as: 'set' }],
    [
      'ownerReferences',
      {
        as: 'list',
        keys: ['uid'],
        defaults: {},
        item: leaf,
      },
    ],
  ]),
}

function listType(schema: StructuralSchema): FieldType {
  const { items } = schema
  const how = schema['x-kubernetes-list-type']
  if (how === 'set') return { as: 'set' }
  if (how !== 'map' || !items) return leaf
  const keys = schema['x-kubernetes-list-map-keys'] ?? []
  const defaults = keys.flatMap((key) => {
    const value = items.properties?.[key]?.default
    return value === undefined ? [] : [[key, value] as const]
  })
  return { as: 'list', keys, defaults: Object.fromEntries(defaults), item: typeOf(items) }
}

function typeOf(schema: StructuralSchema): FieldType {
  if (schema.type === 'array') return listType(schema)
  if (schema.type !== 'object') return leaf
  const { properties, additionalProperties } = schema
  if (!properties && !additionalProperties) return leaf
  const members = Object.entries(properties ?? {}).map(([name, one]) => [name, typeOf(one)] as const)
  return {
    ...{ as: 'map', members: new Map(members) },
    ...(additionalProperties && { others: typeOf(additionalProperties) }),
  }
}

const known = new WeakMap<ResourceDefinition, FieldType>()

/** The type of a kind's objects, without apiVersion and kind, which nobody owns. */
export function fieldTypeOf(kind: ResourceDefinition): FieldType {
  const found = known.get(kind)
  if (found) return found
  const whole = typeOf(objectSchema(kind))
  if (whole.as !== 'map') throw new TypeError(`${kind.kind} has no members`)
  const members = new Map(whole.members)
  members.delete('apiVersion')
  members.delete('kind')
  members.set('metadata', metadata)
  const type: FieldType = { as: 'map', members }
  known.set(kind, type)
  return type
}

/** The type of a member of a map; undefined where the schema has none. */
export function memberType(type: FieldType & { readonly as: 'map' }, name: string): FieldType | undefined {
  return type.members.get(name) ?? type.others
}
