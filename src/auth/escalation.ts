import { type AccessKey, AccessKey as AccessKeyKind } from '../resources/access-key.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { same } from '../resources/parse.ts'
import {
  ClusterRole,
  ClusterRoleBinding,
  type PolicyRule,
  Role,
  RoleBinding,
  rbacGroup,
} from '../resources/rbac.ts'
import type { Target } from './authorize.ts'
import type { Identity } from './identity.ts'
import { impersonationTargets } from './impersonation.ts'
import { uncovered } from './rules-cover.ts'

/** Somebody who writes: what they may do. */
export interface Caller {
  readonly identity: Identity
  readonly may: (verb: string, target: Target) => boolean
  readonly rules: (namespace?: string) => readonly PolicyRule[]
}

/** Why somebody may not write an object whose writing grants something; undefined where they may. */
export type Escalation = string | undefined

/** The kinds whose objects grant something. */
export const granting: readonly ResourceDefinition[] = [
  Role,
  ClusterRole,
  RoleBinding,
  ClusterRoleBinding,
  AccessKeyKind,
]

/** Whether what an object grants is what it granted before: then writing it grants nothing. */
export function grantsTheSame(before: KubeObject | undefined, after: KubeObject): boolean {
  return before !== undefined && same(grantOf(before), grantOf(after))
}

function grantOf(object: KubeObject): unknown {
  const { rules, subjects, roleRef, spec } = object as KubeObject & Record<string, unknown>
  const { user, groups } = (spec ?? {}) as { user?: unknown; groups?: unknown }
  return { rules, subjects, roleRef, user, groups }
}

/** A role may only hold what its writer has, unless they have the verb `escalate` on it. */
export function roleEscalation(
  caller: Caller,
  kind: ResourceDefinition,
  role: Role | ClusterRole,
): Escalation {
  const { name, namespace } = role.metadata
  const target = {
    group: rbacGroup,
    resource: kind.plural,
    name,
    ...(namespace !== undefined && { namespace }),
  }
  if (caller.may('escalate', target)) return undefined
  return missing(caller, uncovered(caller.rules(namespace), role.rules))
}

/** Who binds a role must have all that it allows where it is bound, or the verb `bind` on it. */
export function bindingEscalation(
  caller: Caller,
  binding: RoleBinding | ClusterRoleBinding,
  rules: readonly PolicyRule[],
): Escalation {
  const { roleRef, metadata } = binding
  const { namespace } = metadata
  const resource = roleRef.kind === 'Role' ? Role.plural : ClusterRole.plural
  const target = {
    group: rbacGroup,
    resource,
    name: roleRef.name,
    ...(namespace !== undefined && { namespace }),
  }
  if (caller.may('bind', target)) return undefined
  return missing(caller, uncovered(caller.rules(namespace), rules))
}

/** A key lets its holder be its user: who makes one must be that user, or be let impersonate them and each group. */
export function keyEscalation(caller: Caller, { spec }: AccessKey): Escalation {
  const { identity } = caller
  const own = spec.user === identity.name && spec.groups.every((group) => identity.groups.includes(group))
  if (own) return undefined
  const refused = impersonationTargets({ name: spec.user, groups: spec.groups }).find(
    (target) => !caller.may('impersonate', target),
  )
  if (!refused || 'path' in refused) return undefined
  return `${who(identity)} cannot impersonate ${refused.resource} "${refused.name}": a key may only stand for whom its maker may be`
}

function missing({ identity }: Caller, rules: readonly PolicyRule[]): Escalation {
  if (rules.length === 0) return undefined
  const shown = rules.slice(0, 10).map(ruleText).join('\n')
  return `${who(identity)} is attempting to grant RBAC permissions not currently held:\n${shown}`
}

function who({ name, groups }: Identity): string {
  return `user ${JSON.stringify(name)} (groups=${JSON.stringify(groups)})`
}

/** A rule in Kubernetes' words: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`. */
function ruleText({ apiGroups, resources, resourceNames, nonResourceURLs, verbs }: PolicyRule): string {
  const members = { APIGroups: apiGroups, Resources: resources, ResourceNames: resourceNames }
  const all = { ...members, NonResourceURLs: nonResourceURLs, Verbs: verbs }
  const texts = Object.entries(all).filter(([, list]) => list?.length)
  return `{${texts.map(([name, list]) => `${name}:${JSON.stringify(list?.slice(0, 20))}`).join(', ')}}`
}
