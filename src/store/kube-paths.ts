import type { ResourceDefinition } from '../resources/define.ts'

/** A value of a query; those that are undefined are left out. */
export type Query = Readonly<Record<string, string | undefined>>

/**
 * The path of a collection, or of one object of it, in Kubernetes' REST dialect.
 * @param namespace absent: of all namespaces, or of a kind that has none
 */
export function kubePath(
  kind: ResourceDefinition,
  place: { readonly namespace?: string | undefined; readonly name?: string; readonly subresource?: string },
): string {
  const { namespace, name, subresource } = place
  const root = kind.group === '' ? ['api', kind.version] : ['apis', kind.group, kind.version]
  const parts = [
    ...root,
    ...(kind.namespaced && namespace !== undefined ? ['namespaces', namespace] : []),
    kind.plural,
    ...(name === undefined ? [] : [name]),
    ...(subresource === undefined ? [] : [subresource]),
  ]
  return parts.map((part) => `/${encodeURIComponent(part)}`).join('')
}

/** `?a=b`, with spaces as %20; empty where there is nothing to ask. */
export function queryText(query: Query): string {
  const pairs = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== undefined)
  const text = pairs.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
  return text.length === 0 ? '' : `?${text.join('&')}`
}
