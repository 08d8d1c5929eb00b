import { isRecord } from './prune.ts'

const step = /^(?:\.([A-Za-z0-9_-]+)|\[\?\(@\.([A-Za-z0-9_-]+)==["']([^"']*)["']\)\]|\[(\d+)\])/

function one(value: unknown, match: RegExpExecArray): unknown {
  const [, name, key, wanted, index] = match
  if (name !== undefined) return isRecord(value) && Object.hasOwn(value, name) ? value[name] : undefined
  if (!Array.isArray(value)) return undefined
  if (index !== undefined) return value[Number(index)]
  return value.find((item) => isRecord(item) && item[key ?? ''] === wanted)
}

/**
 * The value at a path of the JSONPath subset of printer columns: `.a.b`, `[0]`, `[?(@.type=="Ready")]` (first match).
 * @returns undefined where there is nothing
 * @throws TypeError where the path is outside the subset
 */
export function valueAtPath(object: unknown, path: string): unknown {
  let value = object
  for (let rest = path; rest !== ''; ) {
    const match = step.exec(rest)
    if (!match) throw new TypeError(`cannot read the path ${path} at ${rest}`)
    value = one(value, match)
    rest = rest.slice(match[0].length)
  }
  return value
}
