import type { PolicyRule } from '../resources/rbac.ts'
import { agentHost, agentRules } from './agent.ts'
import { type Identity, mastersGroup } from './identity.ts'
import { ruleAllows } from './rule-match.ts'
import { type GrantIndex, noGrants, rulesOf } from './rules-of.ts'

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

/**
 * Whether an identity may do it: members of `system:masters` may do everything, others what their rules say.
 * @param verb one of {@link Verb}, or one that only roles know: impersonate, escalate, bind
 */
export function allowed(
  identity: Identity,
  verb: string,
  target: Target,
  grants: GrantIndex = noGrants,
): boolean {
  if (identity.groups.includes(mastersGroup)) return true
  return rulesFor(identity, namespaceOf(target), grants).some((rule) => ruleAllows(rule, verb, target))
}

/** What an identity may do, as rules. */
export function rulesFor(
  identity: Identity,
  namespace?: string,
  grants: GrantIndex = noGrants,
): readonly PolicyRule[] {
  const host = agentHost(identity)
  return [
    ...(identity.groups.includes(mastersGroup) ? everything : []),
    ...(host === undefined ? [] : agentRules(host, namespace)),
    ...rulesOf(grants, identity, namespace),
  ]
}

/** What `system:masters` and the role `cluster-admin` have. */
export const everything: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
]

/** A namespace is in itself, as for Kubernetes: who may read what is in it may be let read it. */
function namespaceOf(target: Target): string | undefined {
  if ('path' in target) return undefined
  return (
    target.namespace ?? (target.resource === 'namespaces' && target.group === '' ? target.name : undefined)
  )
}
