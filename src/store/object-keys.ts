import type { ResourceDefinition } from '../resources/define.ts'
import { ApiError } from './errors.ts'
import type { Ref } from './objects.ts'

export function keyFor(kind: ResourceDefinition, ref: Ref): string {
  return `${prefixFor(kind, kind.namespaced ? (ref.namespace ?? '') : undefined)}${ref.name}`
}

/** `/group/plural/`, then `namespace/` where the kind has one. The core group is `core`. */
export function prefixFor(kind: ResourceDefinition, namespace?: string): string {
  const base = `/${kind.group || 'core'}/${kind.plural}/`
  return namespace === undefined ? base : `${base}${namespace}/`
}

/** Where a list goes on: after which key, in the store as it was at which revision. */
export interface Place {
  readonly after: string
  readonly at: bigint
}

/** A continue token: opaque to clients, JSON in base64url to us. */
export function continueToken({ after, at }: Place): string {
  return Buffer.from(JSON.stringify({ v: 1, rv: String(at), key: after })).toString('base64url')
}

/** @throws ApiError BadRequest for a token of another list, or of nobody */
export function placeOf(token: string, prefix: string): Place {
  const bad = new ApiError('BadRequest', 'continue: the token is not from such a list')
  let value: { v?: unknown; rv?: unknown; key?: unknown } | null
  try {
    value = JSON.parse(Buffer.from(token, 'base64url').toString())
  } catch {
    throw bad
  }
  const { v, rv, key } = value ?? {}
  if (v !== 1 || typeof key !== 'string' || !key.startsWith(prefix) || typeof rv !== 'string') throw bad
  if (!/^\d{1,18}$/.test(rv)) throw bad
  return { after: key, at: BigInt(rv) }
}

/** @throws ApiError BadRequest */
export function revisionOf(text: string): bigint {
  if (!/^\d{1,18}$/.test(text)) throw new ApiError('BadRequest', `resourceVersion: Invalid value: "${text}"`)
  return BigInt(text)
}
