import { applyPatch, type Operation } from 'rfc6902'
import { ApiError } from '../store/errors.ts'

const dangerous = new Set(['__proto__', 'constructor', 'prototype'])

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** RFC 7386: null removes, objects merge, everything else replaces. Changes neither argument. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch
  const result: Record<string, unknown> = isRecord(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (dangerous.has(key)) continue
    if (value === null) delete result[key]
    else result[key] = mergePatch(result[key], value)
  }
  return result
}

/** RFC 6902, all or nothing. Changes neither argument. @throws ApiError Invalid naming the operation that failed */
export function jsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw new ApiError('BadRequest', 'a JSON patch is an array of operations')
  const copy = structuredClone(target)
  patch.forEach((operation: Operation, index) => {
    const path = String((operation as { path?: unknown } | null)?.path ?? '')
    if (path.split('/').some((step) => dangerous.has(step)))
      throw new ApiError('Invalid', `operation ${index}: ${path} is not allowed`)
    const [error] = applyPatch(copy, [operation])
    if (error)
      throw new ApiError(
        'Invalid',
        `the server rejected our request: operation ${index} (${JSON.stringify(operation).slice(0, 200)}): ${error.message}`,
      )
  })
  return copy
}
