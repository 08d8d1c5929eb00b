import { applyPatch, type Operation, Pointer } from 'rfc6902'
import { messageOf } from '../lib/errors.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError } from '../store/errors.ts'
import { shown } from './status.ts'

/** Kubernetes' limit on the operations of one patch. */
const maxOperations = 10_000
/** What `copy` may add in all: each one may double the object, and a few dozen would fill the memory. */
const maxCopiedBytes = 3 * 1024 * 1024
const dangerous = new Set(['__proto__', 'constructor', 'prototype'])

/** RFC 7386: null removes, objects merge, everything else replaces. Changes neither argument. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch
  const result: Record<string, unknown> = isRecord(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    // The one name whose assignment would change the prototype; no member and no label is called so.
    if (key === '__proto__') continue
    if (value === null) delete result[key]
    else result[key] = mergePatch(result[key], value)
  }
  return result
}

/**
 * RFC 6902, all or nothing. Changes neither argument.
 * @throws ApiError Invalid naming the operation that failed, RequestEntityTooLarge for too many or too large ones
 */
export function jsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw new ApiError('BadRequest', 'a JSON patch is an array of operations')
  if (patch.length > maxOperations)
    throw new ApiError('RequestEntityTooLarge', `a JSON patch may have at most ${maxOperations} operations`)
  const result = structuredClone(target)
  let copied = 0
  patch.forEach((operation: unknown, index) => {
    const told = `operation ${index} (${JSON.stringify(operation).slice(0, 200)})`
    if (!isRecord(operation)) throw new ApiError('BadRequest', `${told} is not an object`)
    const { op, from } = operation
    for (const path of [operation['path'], from]) {
      if (
        shown(path ?? '')
          .split('/')
          .some((step) => dangerous.has(step))
      )
        // prototype pollution
        throw new ApiError('Invalid', `${told}: the path is not allowed`)
    }
    if (op === 'copy') copied += sizeAt(result, shown(from))
    if (copied > maxCopiedBytes)
      throw new ApiError(
        'RequestEntityTooLarge',
        `${told}: the patch copies more than ${maxCopiedBytes} bytes`,
      )
    const error = failureOf(result, operation as unknown as Operation)
    if (error) throw new ApiError('Invalid', `the server rejected our request: ${told}: ${error}`)
  })
  return result
}

function sizeAt(root: unknown, pointer: string): number {
  try {
    return JSON.stringify(Pointer.fromJSON(pointer).get(root))?.length ?? 0
  } catch {
    return 0 // Applying it will say what is wrong with the pointer.
  }
}

function failureOf(target: unknown, operation: Operation): string | undefined {
  try {
    return applyPatch(target, [operation])[0]?.message
  } catch (error) {
    return messageOf(error)
  }
}
