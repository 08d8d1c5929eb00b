import { parseDocument } from 'yaml'
import { messageOf } from '../lib/errors.ts'
import { ApiError } from '../store/errors.ts'

/** Deeper than any manifest; a body beyond it is an attack on the parser's stack. */
const maxDepth = 100

/** Times an alias may multiply: a few lines could otherwise become gigabytes. */
const maxAliasCount = 10

function tooDeep(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return false
  return depth > maxDepth || Object.values(value).some((item) => tooDeep(item, depth + 1))
}

function decode(raw: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(raw)
  } catch (error) {
    throw new ApiError('BadRequest', 'the body is not valid UTF-8', {}, { cause: error })
  }
}

/** A JSON or YAML body as a value. @throws ApiError BadRequest with the place, UnsupportedMediaType */
export function parseBody(raw: Buffer, contentType: string | undefined): unknown {
  if (raw.length === 0) return undefined
  const type = (contentType ?? 'application/json').split(';')[0]?.trim().toLowerCase() ?? ''
  const text = decode(raw)
  const value = type === 'application/yaml' ? parseYaml(text) : parseJson(text, type)
  if (tooDeep(value)) throw new ApiError('BadRequest', `the body is nested more than ${maxDepth} deep`)
  return value
}

function parseJson(text: string, type: string): unknown {
  if (type === 'application/apply-patch+yaml') {
    throw new ApiError(
      'UnsupportedMediaType',
      'server-side apply is not supported; use client-side apply (kubectl apply --server-side=false)',
    )
  }
  if (type !== 'application/json' && !type.endsWith('+json')) {
    throw new ApiError(
      'UnsupportedMediaType',
      `the body of the request was in an unknown format: ${type}; use application/json or application/yaml`,
    )
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ApiError('BadRequest', `the body is not JSON: ${messageOf(error)}`, {}, { cause: error })
  }
}

function parseYaml(text: string): unknown {
  const document = parseDocument(text)
  const [error] = document.errors
  if (error) throw new ApiError('BadRequest', `the body is not YAML: ${error.message.split('\n')[0]}`)
  try {
    return document.toJS({ maxAliasCount })
  } catch (cause) {
    throw new ApiError('BadRequest', `the body is not YAML: ${messageOf(cause)}`, {}, { cause })
  }
}
