import { type Identity, mastersGroup } from './identity.ts'

/** Kubernetes' request verbs; for a path that is no resource, the HTTP method in lower case. */
export type Verb =
  | 'get'
  | 'list'
  | 'watch'
  | 'create'
  | 'update'
  | 'patch'
  | 'delete'
  | 'deletecollection'
  | 'post'
  | 'put'

/** What is asked for: a resource of the API, or a plain path such as /metrics. */
export type Target =
  | {
      readonly group: string
      readonly resource: string
      readonly subresource?: string
      readonly namespace?: string
      readonly name?: string
    }
  | { readonly path: string }

/** Whether an identity may do it. Members of `system:masters` may do everything, others nothing. */
export function allowed(identity: Identity, _verb: Verb, _target: Target): boolean {
  return identity.groups.includes(mastersGroup)
}
