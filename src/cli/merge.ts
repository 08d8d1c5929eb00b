import { isDeepStrictEqual } from 'node:util'

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [member: string]: Json | undefined
}

/** Whether a JSON value is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Built without a prototype's setters in the way: `__proto__` is a member like any other. */
function objectOf(entries: readonly (readonly [string, Json])[]): JsonObject {
  return Object.fromEntries(entries)
}

const own = (object: JsonObject, key: string): Json | undefined =>
  Object.hasOwn(object, key) ? object[key] : undefined

/** Applies a merge patch (RFC 7386 section 2). Inputs stay as they are. */
export function applyMergePatch(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch
  const base = isObject(target) ? target : {}
  const merged = new Map(Object.entries(base) as [string, Json][])
  for (const [key, value] of Object.entries(patch)) {
    if (value === undefined) continue
    if (value === null) merged.delete(key)
    else merged.set(key, applyMergePatch(own(base, key), value))
  }
  return objectOf([...merged])
}

/** What must be added or changed in `current` to hold all that `modified` says; lists as a whole. */
function additions(current: JsonObject, modified: JsonObject): JsonObject {
  const entries: [string, Json][] = []
  for (const [key, wanted] of Object.entries(modified)) {
    if (wanted === undefined || wanted === null) continue
    const present = own(current, key)
    if (isObject(wanted) && isObject(present)) {
      const inner = additions(present, wanted)
      if (Object.keys(inner).length > 0) entries.push([key, inner])
    } else if (!isDeepStrictEqual(wanted, present)) entries.push([key, wanted])
  }
  return objectOf(entries)
}

/** Nulls for what `original` had, `modified` has no more and `current` still has. */
function deletions(original: JsonObject, modified: JsonObject, current: JsonObject): JsonObject {
  const entries: [string, Json][] = []
  for (const [key, before] of Object.entries(original)) {
    const wanted = own(modified, key)
    const present = own(current, key)
    if (before === undefined || before === null || present === undefined) continue
    if (wanted === undefined || wanted === null) entries.push([key, null])
    else if (isObject(before) && isObject(wanted) && isObject(present)) {
      const inner = deletions(before, wanted, present)
      if (Object.keys(inner).length > 0) entries.push([key, inner])
    }
  }
  return objectOf(entries)
}

/** Joins two patches whose members never contradict each other: nulls of one, values of the other. */
function join(a: JsonObject, b: JsonObject): JsonObject {
  const joined = new Map(Object.entries(a) as [string, Json][])
  for (const [key, value] of Object.entries(b) as [string, Json][]) {
    const other = own(a, key)
    joined.set(key, isObject(other) && isObject(value) ? join(other, value) : value)
  }
  return objectOf([...joined])
}

/**
 * The merge patch `kubectl apply` sends for custom resources: fields the manifest lost since it was last applied go,
 * fields it has are set, fields others set stay. Null members of a manifest mean "not mentioned".
 * @param original the manifest as last applied; undefined where it never was
 */
export function threeWayMergePatch(
  original: JsonObject | undefined,
  modified: JsonObject,
  current: JsonObject,
): JsonObject {
  return join(deletions(original ?? {}, modified, current), additions(current, modified))
}
