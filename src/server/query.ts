import { ApiError } from '../store/errors.ts'

/** One value of a query parameter; the first where it is repeated. */
export function parameter(query: URLSearchParams, name: string): string | undefined {
  return query.get(name) ?? undefined
}

/** Whether a query says yes, as Kubernetes reads it: whatever is neither false nor 0, a bare name included. */
export function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name)
  return value !== null && value !== '0' && value.toLowerCase() !== 'false'
}

/** A whole number of a query parameter. @throws ApiError BadRequest */
export function numberOf(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name)
  if (text === null || text === '') return undefined
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new ApiError('BadRequest', `${name}: Invalid value: "${text}": must be a whole number`)
}

/** How many objects of a list are wanted at most; all where it is not said, or less than one. @throws ApiError BadRequest */
export function limitOf(query: URLSearchParams): number | undefined {
  if (/^-\d{1,18}$/.test(query.get('limit') ?? '')) return undefined
  return numberOf(query, 'limit')
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
