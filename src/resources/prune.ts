import type { z } from 'zod'

type Def = {
  readonly type: string
  readonly innerType?: z.ZodType
  readonly shape?: Readonly<Record<string, z.ZodType>>
  readonly element?: z.ZodType
  readonly valueType?: z.ZodType
}

function defOf(schema: z.ZodType): Def {
  return schema._zod.def as unknown as Def
}

/** The schema under its optional, nullable, default and prefault wrappers. */
export function unwrap(schema: z.ZodType): z.ZodType {
  let inner = schema
  for (let def = defOf(inner); def.innerType; def = defOf(inner)) inner = def.innerType
  return inner
}

const dangerous: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype'])

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * A copy of `value` with only the members that `schema` knows; the paths of the others are added to `unknown`.
 * Values of the wrong type are copied as they are: saying so is validation's work.
 */
export function prune(schema: z.ZodType, value: unknown, path: string, unknown: string[]): unknown {
  const def = defOf(unwrap(schema))
  if (def.type === 'array' && def.element && Array.isArray(value)) {
    const { element } = def
    return value.map((item, index) => prune(element, item, `${path}[${index}]`, unknown))
  }
  if (!isRecord(value)) return value
  if (def.type === 'record' && def.valueType) {
    const { valueType } = def
    // `constructor` is a name like any other: the copy gets properties of its own. This one some code would assign.
    if (Object.hasOwn(value, '__proto__')) unknown.push(`${path}.__proto__`)
    const entries = Object.entries(value).filter(([key]) => key !== '__proto__')
    return Object.fromEntries(
      entries.map(([key, item]) => [key, prune(valueType, item, `${path}.${key}`, unknown)]),
    )
  }
  return def.shape ? pruneObject(def.shape, value, path, unknown) : value
}

function pruneObject(
  shape: Readonly<Record<string, z.ZodType>>,
  value: Readonly<Record<string, unknown>>,
  path: string,
  unknown: string[],
): Record<string, unknown> {
  const kept: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) {
    const member = Object.hasOwn(shape, key) ? shape[key] : undefined
    const at = path === '' ? key : `${path}.${key}`
    if (!member || dangerous.has(key)) unknown.push(at)
    // A null in a manifest means "not said", as Kubernetes prunes nulls of members that are not nullable.
    else if (item !== null) kept[key] = prune(member, item, at, unknown)
  }
  return kept
}
