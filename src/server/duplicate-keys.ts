/** A string, or one character that opens, closes or separates. What is between is numbers, words and space. */
const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g

/**
 * Paths of members that stand more than once in a JSON text; the last of them counts. At most ten.
 * @param json valid JSON @param value what it was parsed to
 */
export function duplicateKeys(json: string, value: unknown): string[] {
  // What programs write is what it was parsed to, letter by letter: then nothing was lost.
  if (JSON.stringify(value) === json) return []
  const found: string[] = []
  /** For each open bracket: the names seen, or undefined in an array; and the path up to it. */
  const open: { readonly names: Set<string> | undefined; path: string; index: number; name: string }[] = []
  let expectName = false
  for (const [text] of json.matchAll(token)) {
    const top = open.at(-1)
    if (text === '{' || text === '[') {
      const path = top ? pathOf(top) : ''
      open.push({ names: text === '{' ? new Set() : undefined, path, index: 0, name: '' })
      expectName = text === '{'
    } else if (text === '}' || text === ']') open.pop()
    else if (text === ',') {
      if (top && !top.names) top.index += 1
      expectName = top?.names !== undefined
    } else if (text === ':') expectName = false
    else if (expectName && top?.names) {
      top.name = JSON.parse(text) as string
      if (top.names.has(top.name) && found.length < 10) found.push(pathOf(top))
      top.names.add(top.name)
    }
  }
  return found
}

function pathOf(place: {
  names: Set<string> | undefined
  path: string
  index: number
  name: string
}): string {
  if (!place.names) return `${place.path}[${place.index}]`
  return place.path === '' ? place.name : `${place.path}.${place.name}`
}
