import fc from 'fast-check'

const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }).filter((s) => s.isWellFormed())
const segment = fc.oneof(
  text.map(encodeURIComponent),
  fc.constantFrom('', '.', '..', 'a:b', 'x~y', "it's", '(1)', '*', '%2F'),
)
const path = fc.array(segment, { maxLength: 6 }).map((segments) => `/${segments.join('/')}`)
// Some oracles keep parameters in plain objects and so leave one of this name unsigned; we sign it (vectors.test.ts).
const parameter = text.filter((name) => name !== '__proto__')
const query = fc.uniqueArray(fc.tuple(parameter, fc.array(text, { minLength: 1, maxLength: 3 })), {
  maxLength: 5,
  selector: ([name]) => name,
})
const word = fc.stringMatching(/^[!-~]([ -~]{0,12}[!-~])?$/)
const headers = fc
  .dictionary(fc.stringMatching(/^x-[a-z][a-z0-9-]{0,8}$/), word, { maxKeys: 4 })
  // What no signer signs, in case a random name hits it.
  .map((given) => Object.fromEntries(Object.entries(given).filter(([name]) => !/^x-amz/.test(name))))

/** A request of any kind, its path encoded once. */
export const request = fc.record({
  method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE'),
  path,
  query,
  headers,
  body: fc.string({ unit: 'grapheme', maxLength: 40 }).filter((s) => s.isWellFormed()),
})
export type Sample = typeof request extends fc.Arbitrary<infer T> ? T : never

type Located = Pick<Sample, 'path' | 'query'>

/** Path and query as they are sent. @param encode of names and values of the query */
export function rawUrlOf(
  { path, query }: Located,
  encode: (text: string) => string = encodeURIComponent,
): string {
  const raw = query.flatMap(([name, values]) => values.map((value) => `${encode(name)}=${encode(value)}`))
  return raw.length === 0 ? path : `${path}?${raw.join('&')}`
}

/** Everything but the unreserved characters of RFC 3986 encoded. */
export function strict(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
}
