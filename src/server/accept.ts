import { ApiError } from '../store/errors.ts'

export type Form = 'json' | 'table'

interface Range {
  readonly type: string
  readonly parameters: ReadonlyMap<string, string>
  readonly quality: number
}

function rangeOf(item: string): Range {
  const [type = '', ...rest] = item.split(';').map((part) => part.trim())
  const parameters = new Map(
    rest.map((part) => {
      const [key = '', value = ''] = part.split('=')
      return [key.trim().toLowerCase(), value.trim()] as const
    }),
  )
  const quality = Number(parameters.get('q') ?? '1')
  return { type: type.toLowerCase(), parameters, quality: Number.isNaN(quality) ? 1 : quality }
}

function formOf({ type, parameters, quality }: Range): Form | undefined {
  if (quality <= 0 || !['application/json', 'application/*', '*/*'].includes(type)) return undefined
  const as = parameters.get('as')
  if (as === undefined) return 'json'
  const isTable = as === 'Table' && parameters.get('g') === 'meta.k8s.io' && parameters.get('v') === 'v1'
  return isTable ? 'table' : undefined
}

/**
 * What form an answer takes, by an Accept header (RFC 9110 section 12.5.1): the best liked of what is made here,
 * the first of equals. @throws ApiError NotAcceptable
 */
export function negotiate(accept: string | undefined): Form {
  if (!accept?.trim()) return 'json'
  const ranges = accept.split(',').map(rangeOf)
  const liked = ranges.toSorted((a, b) => b.quality - a.quality).map(formOf)
  const form = liked.find((one) => one !== undefined)
  if (form) return form
  throw new ApiError(
    'NotAcceptable',
    'only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io',
  )
}
