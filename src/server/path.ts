import type { Target, Verb } from '../auth/authorize.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { ApiError } from '../store/errors.ts'

/** What a request is about. */
export interface ResourcePath {
  readonly kind: ResourceDefinition
  readonly namespace?: string
  readonly name?: string
  readonly subresource?: string
}

function segment(text: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch (error) {
    throw new ApiError('BadRequest', `the path has a bad escape: ${text}`, {}, { cause: error })
  }
  if (decoded === '' || decoded === '.' || decoded === '..' || /[/%\0]/.test(decoded)) {
    throw new ApiError('BadRequest', `invalid path segment: ${JSON.stringify(decoded)}`)
  }
  return decoded
}

/** A resource path of Kubernetes' REST dialect; undefined where it is none that is served. @throws ApiError BadRequest */
export function parsePath(path: string, kinds: readonly ResourceDefinition[]): ResourcePath | undefined {
  const [, root] = path.split('/', 2)
  if (root !== 'api' && root !== 'apis') return undefined
  const parts = path.slice(1).split('/').map(segment)
  const [group = '', version, ...rest] = root === 'api' ? ['', ...parts.slice(1)] : parts.slice(1)
  const find = (plural: string | undefined) =>
    kinds.find((k) => k.plural === plural && k.group === group && k.version === version)
  const [first, second, third, ...more] = rest
  // `/namespaces/N/plural` is a namespaced kind; `/namespaces/N` and `/namespaces/N/status` are the Namespace itself.
  if (first === 'namespaces' && third !== undefined && third !== 'status' && third !== 'finalize') {
    const kind = find(third)
    const [name, subresource, extra] = more
    if (!kind?.namespaced || extra !== undefined) return undefined
    return {
      kind,
      namespace: second ?? '',
      ...(name !== undefined && { name }),
      ...(subresource !== undefined && { subresource }),
    }
  }
  const kind = find(first)
  if (!kind || more.length > 0 || (kind.namespaced && second !== undefined)) return undefined
  return {
    kind,
    ...(second !== undefined && { name: second }),
    ...(third !== undefined && { subresource: third }),
  }
}

/** Kubernetes' verb for a method on a path. */
export function verbOf(method: string, path: ResourcePath, watch: boolean): Verb {
  switch (method) {
    case 'POST':
      return 'create'
    case 'PUT':
      return 'update'
    case 'PATCH':
      return 'patch'
    case 'DELETE':
      return path.name === undefined ? 'deletecollection' : 'delete'
    default:
      return watch ? 'watch' : path.name === undefined ? 'list' : 'get'
  }
}

/** What is asked for, as authorization and audit name it. */
export function targetOf({ kind, namespace, name, subresource }: ResourcePath): Target {
  return {
    ...{ group: kind.group, resource: kind.plural },
    ...(subresource !== undefined && { subresource }),
    ...(namespace !== undefined && { namespace }),
    ...(name !== undefined && { name }),
  }
}
