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
  const before = unknown.length
  const kept = copy(schema, value, unknown)
  for (let i = before; i < unknown.length; i += 1) unknown[i] = joined(path, unknown[i] as string)
  return kept
}

const joined = (path: string, rest: string) =>
  path === '' || rest.startsWith('[') ? `${path}${rest}` : `${path}.${rest}`

/** As `prune`, with paths from `value` on: they are made only where there is something to tell. */
function copy(schema: z.ZodType, value: unknown, unknown: string[]): unknown {
  if (typeof value !== 'object' || value === null) return value
  const def = defOf(unwrap(schema))
  if (Array.isArray(value)) {
    const { element } = def
    if (def.type !== 'array' || !element) return value
    return value.map((item, index) => copyMember(element, item, `[${index}]`, unknown))
  }
  const record = value as Readonly<Record<string, unknown>>
  if (def.type === 'record' && def.valueType) return copyRecord(def.valueType, record, unknown)
  return def.shape ? copyObject(def.shape, record, unknown) : value
}

function copyRecord(
  valueType: z.ZodType,
  value: Readonly<Record<string, unknown>>,
  unknown: string[],
): Record<string, unknown> {
  // `constructor` is a name like any other: the copy gets properties of its own. This one some code would assign.
  if (Object.hasOwn(value, '__proto__')) unknown.push('__proto__')
  const entries = Object.entries(value).filter(([key, item]) => key !== '__proto__' && item !== null)
  return Object.fromEntries(entries.map(([key, item]) => [key, copyMember(valueType, item, key, unknown)]))
}

function copyObject(
  shape: Readonly<Record<string, z.ZodType>>,
  value: Readonly<Record<string, unknown>>,
  unknown: string[],
): Record<string, unknown> {
  const kept: Record<string, unknown> = {}
  for (const key of Object.keys(value)) {
    const item = value[key]
    const member = Object.hasOwn(shape, key) ? shape[key] : undefined
    if (!member || dangerous.has(key)) unknown.push(key)
    // A null in a manifest means "not said", as Kubernetes prunes nulls of members that are not nullable.
    else if (item !== null) kept[key] = copyMember(member, item, key, unknown)
  }
  return kept
}

function copyMember(schema: z.ZodType, value: unknown, name: string, unknown: string[]): unknown {
  if (typeof value !== 'object' || value === null) return value
  return prune(schema, value, name, unknown)
}
