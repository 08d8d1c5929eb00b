export type HeaderPair = readonly [name: string, value: string]

/** Headers as pairs in the order received, or as an object; an array is a header sent more than once. */
export type HeaderSource =
  | readonly HeaderPair[]
  | Readonly<Record<string, string | readonly string[] | undefined>>

/** Headers as pairs with lower-case names. */
export function headerPairs(source: HeaderSource): HeaderPair[] {
  const pairs = isPairs(source)
    ? source
    : Object.entries(source).flatMap(([name, value]) =>
        value === undefined ? [] : [value].flat().map((one): HeaderPair => [name, one]),
      )
  return pairs.map((pair) => {
    const name = pair[0].toLowerCase()
    return name === pair[0] ? pair : [name, pair[1]]
  })
}

function isPairs(source: HeaderSource): source is readonly HeaderPair[] {
  return Array.isArray(source)
}

/** Pairs from `rawHeaders` of node:http, which is flat: name, value, name, value. */
export function fromRawHeaders(rawHeaders: readonly string[]): HeaderPair[] {
  const pairs: HeaderPair[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) pairs.push([rawHeaders[i]!, rawHeaders[i + 1]!])
  return pairs
}

/** All values of a header; `name` in lower case. */
export function valuesOf(pairs: readonly HeaderPair[], name: string): string[] {
  const values: string[] = []
  for (const [other, value] of pairs) if (other === name) values.push(value)
  return values
}
