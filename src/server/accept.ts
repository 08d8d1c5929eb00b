import { ApiError } from '../store/errors.ts'

/** Kubernetes' forms of an answer: objects as they are, a table of them, or their metadata alone. */
export type Form = 'json' | 'table' | 'metadata' | 'metadataList'

/** How an answer is written. */
export type Syntax = 'json' | 'yaml'

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

/** JSON where both would do. */
function syntaxOf(range: Range): Syntax | undefined {
  return isJson(range) ? 'json' : range.type === 'application/yaml' ? 'yaml' : undefined
}

const forms: Readonly<Record<string, Form>> = {
  Table: 'table',
  PartialObjectMetadata: 'metadata',
  PartialObjectMetadataList: 'metadataList',
}

function formOf({ parameters }: Range): Form | undefined {
  const as = parameters.get('as')
  if (as === undefined) return 'json'
  const known = parameters.get('g') === 'meta.k8s.io' && parameters.get('v') === 'v1'
  return known && Object.hasOwn(forms, as) ? forms[as] : undefined
}

/** The best liked of the types that `read` knows, the first of equals. */
function best<T>(accept: string, read: (range: Range) => T | undefined): T | undefined {
  return rangesOf(accept)
    .map(read)
    .find((one) => one !== undefined)
}

const allSyntaxes: readonly Syntax[] = ['json', 'yaml']

/**
 * What form an answer takes, and how it is written: the best liked of what is made here, the first of equals.
 * @param syntaxes what it can be written in: a watch is JSON alone, as in Kubernetes
 * @throws ApiError NotAcceptable
 */
export function negotiate(
  accept: string | undefined,
  syntaxes = allSyntaxes,
): { readonly form: Form; readonly syntax: Syntax } {
  if (!accept?.trim()) return { form: 'json', syntax: 'json' }
  const found = best(accept, (range) => {
    const [form, syntax] = [formOf(range), syntaxOf(range)]
    return form && syntax && syntaxes.includes(syntax) ? { form, syntax } : undefined
  })
  if (found) return found
  const types = syntaxes.map((one) => `application/${one}`)
  const shaped = Object.keys(forms).map((name) => `application/json;as=${name};v=v1;g=meta.k8s.io`)
  throw notAcceptable([...types, ...shaped])
}

/** How something is written that has one form alone, undefined where in no way that is acceptable. */
function plainSyntax(accept: string): Syntax | undefined {
  return best(accept, (range) => (range.parameters.has('as') ? undefined : syntaxOf(range)))
}

/** How an error is written: like what was asked for, in JSON where that can't be. */
export function errorSyntax(accept: string | undefined): Syntax {
  return plainSyntax(accept ?? '') ?? 'json'
}

/** Versions of apidiscovery.k8s.io that are served. */
export type DiscoveryVersion = 'v2' | 'v2beta1'

/**
 * How discovery is wanted: aggregated, in which version, or as of old.
 * @throws ApiError NotAcceptable
 */
export function negotiateDiscovery(accept: string | undefined): {
  readonly version: DiscoveryVersion | 'plain'
  readonly syntax: Syntax
} {
  if (!accept?.trim()) return { version: 'plain', syntax: 'json' }
  const found = best(accept, (range) => {
    const [version, syntax] = [versionOf(range), syntaxOf(range)]
    return version && syntax && { version, syntax }
  })
  if (found) return found
  const type = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'
  throw notAcceptable(['application/json', 'application/yaml', type])
}

function versionOf({ parameters }: Range): DiscoveryVersion | 'plain' | undefined {
  const [as, group, version] = ['as', 'g', 'v'].map((name) => parameters.get(name))
  if (as === undefined) return 'plain'
  if (as !== 'APIGroupDiscoveryList' || group !== 'apidiscovery.k8s.io') return undefined
  return version === 'v2' || version === 'v2beta1' ? version : undefined
}

/** How a document that has one form is wanted. @throws ApiError NotAcceptable */
export function negotiatePlain(accept: string | undefined): Syntax {
  const syntax = accept?.trim() ? plainSyntax(accept) : 'json'
  if (syntax) return syntax
  throw notAcceptable(['application/json', 'application/yaml'])
}

/** The best liked of JSON and another form, which has these media types. @throws ApiError NotAcceptable where neither is taken */
export function jsonOr(other: readonly string[], accept: string | undefined): 'json' | 'other' {
  if (!accept?.trim()) return 'json'
  const first = best(accept, (range) => {
    if (other.includes(range.type)) return 'other' as const
    return isJson(range) && !range.parameters.has('as') ? ('json' as const) : undefined
  })
  if (first) return first
  throw notAcceptable(['application/json', ...other])
}

function notAcceptable(types: readonly string[]): ApiError {
  return new ApiError('NotAcceptable', `only the following media types are accepted: ${types.join(', ')}`)
}
