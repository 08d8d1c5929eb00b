import { ApiError } from '../store/errors.ts'
import { shown } from './status.ts'

export type FieldTest = (object: unknown) => boolean

/** One value of a query parameter; the first where it is repeated. */
export function parameter(query: URLSearchParams, name: string): string | undefined {
  return query.get(name) ?? undefined
}

export function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name)
  return value === 'true' || value === '1'
}

/** A whole number of a query parameter. @throws ApiError BadRequest */
export function numberOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name)
  if (text === null || text === '') return undefined
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new ApiError('BadRequest', `${name}: Invalid value: "${text}": must be a whole number`)
}

/**
 * A signature covers what is in a query, not in which order: a name with two different values would mean one thing or
 * the other. @throws ApiError BadRequest
 */
export function refuseAmbiguous(query: URLSearchParams): void {
  for (const name of new Set(query.keys())) {
    if (new Set(query.getAll(name)).size > 1)
      throw new ApiError('BadRequest', `${name.slice(0, 100)}: given more than once, with different values`)
  }
}

export function isDryRun(query: URLSearchParams): boolean {
  const values = query.getAll('dryRun')
  const other = values.find((value) => value !== 'All')
  if (other !== undefined)
    throw new ApiError('BadRequest', `dryRun: Unsupported value: "${other}": supported values: "All"`)
  return values.length > 0
}

const selectable =
  /^(metadata\.(name|namespace)|involvedObject\.(name|namespace|kind|uid|apiVersion|fieldPath|resourceVersion)|reason|type|status\.phase|status\.hostName|spec\.runStrategy)$/

function valueAt(object: unknown, path: string): string {
  let value: unknown = object
  for (const step of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[step]
  return value === undefined || value === null ? '' : shown(value)
}

/** A field selector: `metadata.name=web,status.phase!=Running`. @throws ApiError BadRequest for a field that can't be selected by */
export function parseFieldSelector(text: string | undefined): FieldTest {
  if (!text) return () => true
  const tests = text.split(',').map((part): FieldTest => {
    const [, path = '', operator, value = ''] = /^([^=!]+)(==?|!=)(.*)$/.exec(part.trim()) ?? []
    if (!selectable.test(path))
      throw new ApiError('BadRequest', `fieldSelector: "${part}": field label not supported`)
    return (object) => (valueAt(object, path) === value) === (operator !== '!=')
  })
  return (object) => tests.every((test) => test(object))
}
