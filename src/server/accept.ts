import { ApiError } from '../store/errors.ts'

/** Kubernetes' forms of an answer: objects as they are, a table of them, or their metadata alone. */
export type Form = 'json' | 'table' | 'metadata' | 'metadataList'

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

/** The acceptable types of an Accept header (RFC 9110 section 12.5.1), the best liked first, then as they stand. */
function rangesOf(accept: string): Range[] {
  const ranges = accept.split(',').map(rangeOf)
  return ranges.filter(({ quality }) => quality > 0).toSorted((a, b) => b.quality - a.quality)
}

const isJson = ({ type }: Range) => ['application/json', 'application/*', '*/*'].includes(type)

const forms: Readonly<Record<string, Form>> = {
  Table: 'table',
  PartialObjectMetadata: 'metadata',
  PartialObjectMetadataList: 'metadataList',
}

function formOf(range: Range): Form | undefined {
  if (!isJson(range)) return undefined
  const { parameters } = range
  const as = parameters.get('as')
  if (as === undefined) return 'json'
  const known = parameters.get('g') === 'meta.k8s.io' && parameters.get('v') === 'v1'
  return known && Object.hasOwn(forms, as) ? forms[as] : undefined
}

/** What form an answer takes: the best liked of what is made here, the first of equals. @throws ApiError NotAcceptable */
export function negotiate(accept: string | undefined): Form {
  if (!accept?.trim()) return 'json'
  const form = rangesOf(accept)
    .map(formOf)
    .find((one) => one !== undefined)
  if (form) return form
  const types = Object.keys(forms).map((name) => `application/json;as=${name};v=v1;g=meta.k8s.io`)
  throw notAcceptable(['application/json', ...types])
}

/** Versions of apidiscovery.k8s.io that are served. */
export type DiscoveryVersion = 'v2' | 'v2beta1'

/** Whether discovery is wanted aggregated, in which version, or as of old. @throws ApiError NotAcceptable */
export function negotiateDiscovery(accept: string | undefined): DiscoveryVersion | 'plain' {
  if (!accept?.trim()) return 'plain'
  const wanted = rangesOf(accept)
    .filter(isJson)
    .map(({ parameters }) => {
      const [as, group, version] = ['as', 'g', 'v'].map((name) => parameters.get(name))
      if (as === undefined) return 'plain' as const
      if (as !== 'APIGroupDiscoveryList' || group !== 'apidiscovery.k8s.io') return undefined
      return version === 'v2' || version === 'v2beta1' ? version : undefined
    })
  const first = wanted.find((one) => one !== undefined)
  if (first) return first
  const type = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'
  throw notAcceptable(['application/json', type])
}

/** The best liked of JSON and another form, which has these media types. @throws ApiError NotAcceptable where neither is taken */
export function jsonOr(other: readonly string[], accept: string | undefined): 'json' | 'other' {
  if (!accept?.trim()) return 'json'
  const liked = rangesOf(accept).map((range) => {
    if (other.includes(range.type)) return 'other' as const
    return isJson(range) && !range.parameters.has('as') ? ('json' as const) : undefined
  })
  const first = liked.find((one) => one !== undefined)
  if (first) return first
  throw notAcceptable(['application/json', ...other])
}

function notAcceptable(types: readonly string[]): ApiError {
  return new ApiError('NotAcceptable', `only the following media types are accepted: ${types.join(', ')}`)
}
