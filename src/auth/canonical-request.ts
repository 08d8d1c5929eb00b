import { canonicalPath } from './canonical-path.ts'
import { canonicalQuery, type QueryPair, queryPairs } from './canonical-query.ts'
import { type HeaderPair, valuesOf } from './header-pairs.ts'

export interface CanonicalParts {
  readonly method: string
  /** Path and query as they stand in the request line. */
  readonly rawUrl: string
  /** With lower-case names. */
  readonly headers: readonly HeaderPair[]
  /** Lower-case names in the order they were signed in. */
  readonly signedHeaders: readonly string[]
  /** Lower-case hexadecimal SHA-256 of the body. */
  readonly bodySha256: string
}

/** Path and query of a request target; the query is empty where there is none. */
export function splitUrl(rawUrl: string): { readonly path: string; readonly query: string } {
  const at = rawUrl.indexOf('?')
  return at < 0 ? { path: rawUrl, query: '' } : { path: rawUrl.slice(0, at), query: rawUrl.slice(at + 1) }
}

function headerLine(headers: readonly HeaderPair[], name: string): string {
  const values = valuesOf(headers, name).map((value) => value.replace(/[ \t]+/g, ' ').replace(/^ | $/g, ''))
  return `${name}:${values.join(',')}\n`
}

function assemble(parts: CanonicalParts, path: string, query: string): string {
  const { method, headers, signedHeaders, bodySha256 } = parts
  const lines = signedHeaders.map((name) => headerLine(headers, name)).join('')
  return [method, path, query, lines, signedHeaders.join(';'), bodySha256].join('\n')
}

const isSignature = ([name]: QueryPair) => name === 'X-Amz-Signature'

/** The canonical request of the Signature Version 4 specification; X-Amz-Signature of a presigned URL is left out. */
export function canonicalRequest(parts: CanonicalParts): string {
  const { path, query } = splitUrl(parts.rawUrl)
  const pairs = queryPairs(query).filter((pair) => !isSignature(pair))
  return assemble(parts, canonicalPath(path), canonicalQuery(pairs))
}

/**
 * The canonical request as curl before 8.x makes it: path and query exactly as sent, neither sorted nor encoded again.
 * @returns undefined for a path with a %, where the same text is the specification's form of another path
 *   (`/a%2520b` as sent, and `/a%20b` encoded once more): one signature would fit two requests. Without a % it can't.
 */
export function asSentRequest(parts: CanonicalParts): string | undefined {
  const { path, query } = splitUrl(parts.rawUrl)
  return path.includes('%') ? undefined : assemble(parts, path, query)
}
