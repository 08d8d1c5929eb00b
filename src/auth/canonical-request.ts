import { canonicalPath, canonicalPathOnce } from './canonical-path.ts'
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
  /** The parameters of the query, where they are parsed already. */
  readonly pairs?: readonly QueryPair[]
  /** `twice` unless told; S3 alone has `once`. */
  readonly pathEncoding?: PathEncoding
}

/** Whether the path that is sent, which is encoded, is encoded once more to be signed. */
export type PathEncoding = 'once' | 'twice'

/** Path and query of a request target; the query is empty where there is none. */
export function splitUrl(rawUrl: string): { readonly path: string; readonly query: string } {
  const at = rawUrl.indexOf('?')
  return at < 0 ? { path: rawUrl, query: '' } : { path: rawUrl.slice(0, at), query: rawUrl.slice(at + 1) }
}

/** Spaces in a row, and a line that is folded (RFC 9112 section 5.2), are one space; none is left at either end. */
function trimAll(value: string): string {
  if (/^[\x21-\x7e]*$/.test(value)) return value
  return value.replace(/(\r?\n(?=[ \t])|[ \t])+/g, ' ').replace(/^ | $/g, '')
}

function headerLine(headers: readonly HeaderPair[], name: string): string {
  return `${name}:${valuesOf(headers, name).map(trimAll).join(',')}\n`
}

const isSignature = ([name]: QueryPair) => name === 'X-Amz-Signature'

/** The canonical request of the Signature Version 4 specification; X-Amz-Signature of a presigned URL is left out. */
export function canonicalRequest(parts: CanonicalParts): string {
  const { method, rawUrl, headers, signedHeaders, bodySha256 } = parts
  const { path, query } = splitUrl(rawUrl)
  const pairs = parts.pairs ?? queryPairs(query)
  const signed = pairs.some(isSignature) ? pairs.filter((pair) => !isSignature(pair)) : pairs
  const canonical = parts.pathEncoding === 'once' ? canonicalPathOnce(path) : canonicalPath(path)
  let text = `${method}\n${canonical}\n${canonicalQuery(signed)}\n`
  for (const name of signedHeaders) text += headerLine(headers, name)
  return `${text}\n${signedHeaders.join(';')}\n${bodySha256}`
}
