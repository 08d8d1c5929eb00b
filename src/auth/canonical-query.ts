import { awsUriEncode, percentDecode } from './uri-encode.ts'

/** Name and value, each decoded to bytes and encoded again by UriEncode. */
export type QueryPair = readonly [name: string, value: string]

const isCanonical = /^[A-Za-z0-9\-._~]*$/

/** A + is the space that form encoding and Kubernetes clients mean by it. */
function recode(text: string): string {
  return isCanonical.test(text) ? text : awsUriEncode(percentDecode(text.replaceAll('+', '%20')))
}

/** The parameters of a raw query string in their order. A lone name has an empty value; a stray % is itself. */
export function queryPairs(rawQuery: string): QueryPair[] {
  if (rawQuery === '') return []
  return rawQuery
    .split('&')
    .filter((piece) => piece !== '')
    .map((piece) => {
      const at = piece.indexOf('=')
      const name = at < 0 ? piece : piece.slice(0, at)
      const value = at < 0 ? '' : piece.slice(at + 1)
      return [recode(name), recode(value)]
    })
}

const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/** CanonicalQueryString: sorted by encoded name, then by encoded value (SigV4, "Create a canonical request", step 3). */
export function canonicalQuery(pairs: readonly QueryPair[]): string {
  if (pairs.length === 0) return ''
  return pairs
    .toSorted((a, b) => order(a[0], b[0]) || order(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}
