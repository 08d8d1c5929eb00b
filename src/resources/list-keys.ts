import type { ResourceDefinition } from './define.ts'
import type { Cause } from './parse.ts'
import { isRecord } from './prune.ts'
import { bodySchema, type StructuralSchema } from './schema.ts'

const known = new WeakMap<ResourceDefinition, StructuralSchema>()

function schemaOf(kind: ResourceDefinition): StructuralSchema {
  const schema = known.get(kind) ?? bodySchema(kind)
  known.set(kind, schema)
  return schema
}

/**
 * What is wrong with lists whose elements are told apart by keys (`listOf`) where two have the same: a Kubernetes API
 * server refuses these by their schema alone. One that is not said has its default.
 */
export function duplicateCauses(kind: ResourceDefinition, member: string, value: unknown): Cause[] {
  const schema = schemaOf(kind).properties?.[member]
  return schema ? within(schema, value, member) : []
}

function within(schema: StructuralSchema, value: unknown, path: string): Cause[] {
  if (Array.isArray(value)) {
    const { items = {} } = schema
    const deeper = value.flatMap((item, index) => within(items, item, `${path}[${index}]`))
    return [...twice(schema, value, path), ...deeper]
  }
  if (!isRecord(value)) return []
  return Object.entries(value).flatMap(([name, one]) => {
    const member = schema.properties?.[name]
    return member ? within(member, one, `${path}.${name}`) : []
  })
}

function twice(schema: StructuralSchema, list: readonly unknown[], path: string): Cause[] {
  const { items = {}, 'x-kubernetes-list-map-keys': keys = [] } = schema
  if (keys.length === 0) return []
  const seen = new Set<string>()
  return list.flatMap((item, index) => {
    if (!isRecord(item)) return []
    const key = JSON.stringify(
      Object.fromEntries(keys.map((name) => [name, item[name] ?? items.properties?.[name]?.default])),
    )
    if (!seen.has(key)) return seen.add(key) && []
    return [{ reason: 'FieldValueDuplicate', field: `${path}[${index}]`, message: `Duplicate value: ${key}` }]
  })
}
