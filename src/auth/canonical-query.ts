import { awsUriEncode } from './uri-encode.ts'

/** Name and value, each decoded to bytes and encoded again by UriEncode. */
export type QueryPair = readonly [name: string, value: string]

/** Decodes %XX, and + as the space that form encoding and Kubernetes clients mean; other characters are bytes. */
function decodeBytes(text: string): Buffer {
  const bytes: number[] = []
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    const hex = char === '%' ? /^[0-9A-Fa-f]{2}/.exec(text.slice(i + 1, i + 3)) : null
    if (hex) {
      bytes.push(Number.parseInt(hex[0], 16))
      i += 2
    } else {
      bytes.push(char === '+' ? 0x20 : text.charCodeAt(i) & 0xff)
    }
  }
  return Buffer.from(bytes)
}

/** The parameters of a raw query string in their order. A lone name has an empty value; a stray % is itself. */
export function queryPairs(rawQuery: string): QueryPair[] {
  return rawQuery
    .split('&')
    .filter((piece) => piece !== '')
    .map((piece) => {
      const at = piece.indexOf('=')
      const name = at < 0 ? piece : piece.slice(0, at)
      const value = at < 0 ? '' : piece.slice(at + 1)
      return [awsUriEncode(decodeBytes(name)), awsUriEncode(decodeBytes(value))]
    })
}

const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/** CanonicalQueryString: sorted by encoded name, then by encoded value (SigV4, "Create a canonical request", step 3). */
export function canonicalQuery(pairs: readonly QueryPair[]): string {
  return pairs
    .toSorted((a, b) => order(a[0], b[0]) || order(a[1], b[1]))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}
