import { z } from 'zod'
import {
  apiVersionOf,
  type KubeObject,
  type ResourceDefinition,
  type Rule,
  type RuleBreach,
} from './define.ts'
import { duplicateCauses } from './list-keys.ts'
import { isRecord, prune } from './prune.ts'
import { noteMisunderstood } from './understood.ts'

/** One field-level cause, as in the `details.causes` of a Kubernetes Status. */
export interface Cause {
  readonly reason: string
  readonly field: string
  readonly message: string
}

export type Parsed<T> =
  | { readonly ok: true; readonly stored: T; readonly object: T; readonly unknown: string[] }
  | { readonly ok: false; readonly causes: Cause[] }

const stringMap = z.record(z.string(), z.string())
const ownerReference = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string(),
  uid: z.string(),
  controller: z.boolean().optional(),
  blockOwnerDeletion: z.boolean().optional(),
})

export const objectMeta = z.object({
  name: z.string().optional(),
  generateName: z.string().optional(),
  namespace: z.string().optional(),
  uid: z.string().optional(),
  resourceVersion: z.string().optional(),
  generation: z.int().optional(),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  deletionGracePeriodSeconds: z.int().optional(),
  finalizers: z.array(z.string()).optional(),
  labels: stringMap.optional(),
  annotations: stringMap.optional(),
  ownerReferences: z.array(ownerReference).optional(),
  managedFields: z.array(z.unknown()).optional(),
  selfLink: z.string().optional(),
})

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null'
  return text.length > 100 ? `${text.slice(0, 97)}...` : text
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root
  for (const step of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[step]
  return value
}

function fieldOf(path: readonly PropertyKey[]): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`))
    .join('')
    .slice(1)
}

/** Kubernetes' words and reasons (apimachinery field.Error) for one finding of the schema. */
function causeOf(issue: z.core.$ZodIssue, root: unknown): Cause {
  const field = fieldOf(issue.path)
  const value = valueAt(root, issue.path)
  if (value === undefined || value === null)
    return { reason: 'FieldValueRequired', field, message: 'Required value' }
  if (issue.code === 'invalid_type') {
    return {
      reason: 'FieldValueTypeInvalid',
      field,
      message: `Invalid value: ${shown(value)}: must be ${anA(issue.expected)}`,
    }
  }
  if (issue.code === 'invalid_value') {
    const values = issue.values.map((one) => shown(one)).join(', ')
    return {
      reason: 'FieldValueNotSupported',
      field,
      message: `Unsupported value: ${shown(value)}: supported values: ${values}`,
    }
  }
  const [reason, why] = rangeOf(issue)
  return { reason, field, message: `Invalid value: ${shown(value)}: ${why}` }
}

/** Kubernetes' words for what is too big or too small; the schema's own for the rest. */
function rangeOf(issue: z.core.$ZodIssue): readonly [string, string] {
  if (issue.code === 'too_big' || issue.code === 'too_small') {
    const [bound, few] = issue.code === 'too_big' ? [issue.maximum, 'at most'] : [issue.minimum, 'at least']
    if (issue.origin === 'string' && bound === 1) return ['FieldValueInvalid', 'must not be empty']
    if (issue.origin === 'string') return ['FieldValueTooLong', `must have ${few} ${bound} characters`]
    if (issue.origin === 'array') return ['FieldValueTooMany', `must have ${few} ${bound} items`]
    return ['FieldValueInvalid', `must be ${few} ${bound}`]
  }
  const isAddress = issue.code === 'invalid_format' && issue.format === 'ipv4'
  return ['FieldValueInvalid', isAddress ? 'must be an IPv4 address such as 127.0.0.1' : issue.message]
}

/** `a string`, `an object`. Every number of ours is an integer. */
function anA(type: string): string {
  const name = type === 'int' || type === 'number' ? 'integer' : type === 'record' ? 'object' : type
  return `${/^[aeiou]/.test(name) ? 'an' : 'a'} ${name}`
}

/** The values at a rule's place, with their paths: `spec.disks[]` is every element of spec.disks. */
function placesOf(root: unknown, at: string): { value: unknown; path: string }[] {
  let places = [{ value: root, path: '' }]
  if (at === '') return places
  for (const part of at.split('.')) {
    const name = part.replace('[]', '')
    places = places.flatMap(({ value, path }) => {
      const next = (value as Record<string, unknown> | undefined)?.[name]
      const here = path === '' ? name : `${path}.${name}`
      if (next === undefined) return []
      if (!part.endsWith('[]')) return [{ value: next, path: here }]
      return (next as unknown[]).map((item, index) => ({ value: item, path: `${here}[${index}]` }))
    })
  }
  return places
}

function brokenRules(rules: readonly Rule[], body: unknown): Cause[] {
  return rules.flatMap((rule) =>
    placesOf(body, rule.at).flatMap(({ value, path }) => {
      const result = rule.holds(value as never)
      if (result === true) return []
      const breach = result === false ? { field: '' } : result
      return [breachOf({ message: rule.message, ...breach }, value, path)]
    }),
  )
}

const wordsOf = { FieldValueForbidden: 'Forbidden', FieldValueTooLong: 'Too long' } as const

function breachOf(breach: RuleBreach, value: unknown, path: string): Cause {
  const { field, message, duplicate, reason } = breach
  const at = path === '' || field === '' || field.startsWith('[') ? `${path}${field}` : `${path}.${field}`
  if (reason) return { reason, field: at, message: `${wordsOf[reason]}: ${message}` }
  const found = 'value' in breach ? breach.value : valueAt(value, field.split(/[.[\]]+/).filter(Boolean))
  if (duplicate)
    return { reason: 'FieldValueDuplicate', field: at, message: `Duplicate value: ${shown(found)}` }
  if (found === undefined)
    return { reason: 'FieldValueRequired', field: at, message: `Required value: ${message}` }
  return { reason: 'FieldValueInvalid', field: at, message: `Invalid value: ${shown(found)}: ${message}` }
}

/** @returns causes where apiVersion or kind is not the definition's. */
function wrongType(kind: ResourceDefinition, doc: Readonly<Record<string, unknown>>): Cause[] {
  const causes: Cause[] = []
  for (const [field, wanted] of [
    ['apiVersion', apiVersionOf(kind)],
    ['kind', kind.kind],
  ] as const) {
    if (doc[field] === wanted) continue
    const message =
      doc[field] === undefined ? 'Required value' : `Invalid value: ${shown(doc[field])}: must be ${wanted}`
    causes.push({
      reason: doc[field] === undefined ? 'FieldValueRequired' : 'FieldValueInvalid',
      field,
      message,
    })
  }
  return causes
}

/** Labels and annotations that are null are empty texts to Kubernetes. */
function emptyTexts(metadata: unknown): unknown {
  if (!isRecord(metadata)) return metadata
  const filled = ['labels', 'annotations'].flatMap((name) => {
    const map = metadata[name]
    if (!isRecord(map) || !Object.values(map).includes(null)) return []
    return [[name, Object.fromEntries(Object.entries(map).map(([key, text]) => [key, text ?? '']))]]
  })
  return filled.length === 0 ? metadata : { ...metadata, ...Object.fromEntries(filled) }
}

/**
 * Checks a document against its kind: types, ranges, rules across fields.
 * `stored` is the document without unknown fields and without defaults, `object` the same with defaults.
 */
export function parse<T extends KubeObject>(kind: ResourceDefinition<T>, doc: unknown): Parsed<T> {
  if (!isRecord(doc))
    return {
      ok: false,
      causes: [{ reason: 'FieldValueTypeInvalid', field: '', message: 'must be an object' }],
    }
  const { apiVersion, kind: kindName, metadata = {}, ...rest } = doc
  const unknown: string[] = []
  const meta = prune(objectMeta, emptyTexts(metadata), 'metadata', unknown)
  const body = prune(kind.body, rest, '', unknown) as Record<string, unknown>
  const causes = wrongType(kind, doc)
  const checkedMeta = objectMeta.safeParse(meta)
  if (!checkedMeta.success) {
    causes.push(
      ...checkedMeta.error.issues.map((issue) =>
        causeOf({ ...issue, path: ['metadata', ...issue.path] }, { metadata: meta }),
      ),
    )
  }
  const checked = kind.body.safeParse(body)
  if (!checked.success) causes.push(...checked.error.issues.map((issue) => causeOf(issue, body)))
  else causes.push(...brokenRules(kind.rules, checked.data))
  if (causes.length > 0 || !checked.success) return { ok: false, causes }
  const head = { apiVersion: apiVersion as string, kind: kindName as string, metadata: meta }
  return {
    ok: true,
    stored: { ...head, ...body } as unknown as T,
    object: { ...head, ...checked.data } as unknown as T,
    unknown,
  }
}

/**
 * Checks the status of an object of a kind by itself; what is stored around it is no concern of its author's.
 * @returns it without unknown fields and without defaults
 */
export function parseStatus(
  kind: ResourceDefinition,
  status: unknown,
): { readonly ok: true; readonly stored: unknown } | { readonly ok: false; readonly causes: Cause[] } {
  const schema = kind.body.shape['status'] as z.ZodType | undefined
  if (!schema) return { ok: true, stored: undefined }
  const stored = prune(schema, status ?? undefined, 'status', [])
  const checked = schema.safeParse(stored)
  const causes = checked.success
    ? duplicateCauses(kind, 'status', stored)
    : checked.error.issues.map((issue) =>
        causeOf({ ...issue, path: ['status', ...issue.path] }, { status: stored }),
      )
  return causes.length > 0 ? { ok: false, causes } : { ok: true, stored }
}

/** Paths of the members of a document that its kind does not know. */
export function unknownIn(kind: ResourceDefinition, doc: object): string[] {
  const { apiVersion: _a, kind: _k, metadata = {}, ...rest } = doc as Partial<KubeObject>
  const unknown: string[] = []
  prune(objectMeta, metadata, 'metadata', unknown)
  prune(kind.body, rest, '', unknown)
  return unknown
}

/**
 * A stored object as readers see it. One that is not valid here, as another version stored it, stays as it was stored;
 * `misunderstood` then says why.
 */
export function withDefaults<T extends KubeObject>(kind: ResourceDefinition<T>, stored: T): T {
  const { apiVersion, kind: kindName, metadata, ...rest } = stored
  const body = kind.body.safeParse(rest)
  if (body.success) return { apiVersion, kind: kindName, metadata, ...body.data } as unknown as T
  const [cause] = body.error.issues.map((issue) => causeOf(issue, rest))
  return noteMisunderstood({ ...stored }, cause ? `${cause.field}: ${cause.message}` : 'it is not valid')
}

/** Whether two values are the same as JSON: members that are undefined count as absent. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b) return true
  if (Array.isArray(a))
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => same(item, b[i]))
  if (!isRecord(a) || !isRecord(b)) return false
  const keys = Object.keys(a).filter((key) => a[key] !== undefined)
  const others = Object.keys(b).filter((key) => b[key] !== undefined)
  return keys.length === others.length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]))
}

/** The element that stood for the same thing before: by `name` where elements have names, else by index. */
function counterpart(list: readonly unknown[], item: unknown, index: number): number {
  if (!isRecord(item) || item['name'] === undefined) return index
  return list.findIndex((other) => isRecord(other) && other['name'] === item['name'])
}

function strip(next: unknown, stored: unknown, defaulted: unknown): unknown {
  // The very value that is stored says what it said.
  if (next === stored) return next
  if (Array.isArray(next) && Array.isArray(stored) && Array.isArray(defaulted)) {
    return next.map((item, index) => {
      const at = counterpart(defaulted, item, index)
      return at < 0 || at >= stored.length ? item : strip(item, stored[at], defaulted[at])
    })
  }
  if (!isRecord(next) || !isRecord(defaulted)) return next
  const written = isRecord(stored) ? stored : {}
  const kept: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(next)) {
    if (!Object.hasOwn(written, key)) {
      if (same(value, defaulted[key])) continue
      kept[key] = isRecord(value) && isRecord(defaulted[key]) ? strip(value, {}, defaulted[key]) : value
    } else kept[key] = strip(value, written[key], defaulted[key])
  }
  return kept
}

/**
 * `next` without the values that equal a default which `before.stored` never said, so that reading, changing and
 * writing an object back does not turn defaults into statements of the user.
 */
export function withoutDefaults<T extends KubeObject>(
  _kind: ResourceDefinition<T>,
  next: T,
  before: { readonly stored: T; readonly defaulted: T },
): T {
  const { apiVersion, kind, metadata, ...rest } = next
  const { metadata: _m, ...stored } = before.stored
  const { metadata: _d, ...defaulted } = before.defaulted
  const body = strip(rest, stored, defaulted) as Record<string, unknown>
  return { apiVersion, kind, metadata, ...body } as unknown as T
}
