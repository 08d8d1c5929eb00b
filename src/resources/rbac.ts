import { z } from 'zod'
import { defineResource, type ObjectOf, type ResourceDefinition, type Rule } from './define.ts'

/** Kubernetes' group of roles and bindings. */
export const rbacGroup = 'rbac.authorization.k8s.io'

const own = { group: rbacGroup, version: 'v1', hasStatus: false, names: 'segment' } as const
const age = { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' } as const

/** Lists longer than this are nobody's rule, and would make what a rule covers long to work out. */
const maxWords = 200
const words = (description: string) => z.array(z.string()).max(maxWords).optional().describe(description)

const policyRule = z.object({
  verbs: z
    .array(z.string())
    .min(1)
    .max(maxWords)
    .describe('Such as get, list, watch, create, update, patch, delete; * is all.'),
  apiGroups: words('Groups of the resources; "" is the core group, * is all.'),
  resources: words('Such as virtualmachines, virtualmachines/console, */status; * is all.'),
  resourceNames: words('Only objects of these names; all where empty.'),
  nonResourceURLs: words(
    'Paths that are no resources, such as /metrics; a * at the end stands for any rest.',
  ),
})

/** What somebody may do (rbac.authorization.k8s.io/v1 PolicyRule). */
export type PolicyRule = z.output<typeof policyRule>

const filled = (list: readonly string[] | undefined) => list !== undefined && list.length > 0

/** As Kubernetes checks a rule (pkg/apis/rbac/validation): about resources, or about paths, never about both. */
function wellFormed(rule: PolicyRule, clusterWide: boolean): ReturnType<Rule['holds']> {
  if (filled(rule.nonResourceURLs)) {
    if (!clusterWide)
      return { field: 'nonResourceURLs', message: 'namespaced rules cannot apply to non-resource URLs' }
    const other = (['apiGroups', 'resources', 'resourceNames'] as const).find((name) => filled(rule[name]))
    return (
      other === undefined || { field: other, message: 'a rule is about resources or about paths, not both' }
    )
  }
  if (!filled(rule.apiGroups))
    return { field: 'apiGroups', message: 'resource rules must supply at least one api group' }
  return (
    filled(rule.resources) || {
      field: 'resources',
      message: 'resource rules must supply at least one resource',
    }
  )
}

function ruleOfRules(clusterWide: boolean): Rule {
  return {
    at: 'rules[]',
    cel: '',
    message: 'must name verbs with apiGroups and resources, or with nonResourceURLs',
    holds: (rule: never) => wellFormed(rule, clusterWide),
  }
}

const rolesBody = z.object({
  rules: z.array(policyRule).max(1_000).default([]).describe('What it allows; nothing is ever denied.'),
})

export const Role = defineResource({
  ...own,
  kind: 'Role',
  plural: 'roles',
  description: "Kubernetes' Role: what may be done in its namespace.",
  body: rolesBody,
  rules: [ruleOfRules(false)],
  columns: [{ name: 'Created At', type: 'string', path: '.metadata.creationTimestamp' }],
})
export type Role = ObjectOf<typeof Role>

export const ClusterRole = defineResource({
  ...own,
  kind: 'ClusterRole',
  plural: 'clusterroles',
  namespaced: false,
  description:
    "Kubernetes' ClusterRole: what may be done, where a binding says. Roles are not aggregated here.",
  body: rolesBody,
  rules: [ruleOfRules(true)],
  columns: [{ name: 'Created At', type: 'string', path: '.metadata.creationTimestamp' }],
})
export type ClusterRole = ObjectOf<typeof ClusterRole>

const subject = z.object({
  kind: z.enum(['User', 'Group', 'ServiceAccount']).describe('What the name is of.'),
  apiGroup: z.string().optional().describe('rbac.authorization.k8s.io for users and groups.'),
  name: z.string().min(1).describe('Name of the user, group or account.'),
  namespace: z.string().optional().describe('Of a service account.'),
})
/** Who a binding is for (rbac.authorization.k8s.io/v1 Subject). */
export type Subject = z.output<typeof subject>

function bindingBody<K extends [string, ...string[]]>(kinds: K) {
  return z.object({
    subjects: z.array(subject).max(10_000).default([]).describe('Who may do it.'),
    roleRef: z
      .object({
        apiGroup: z.enum([rbacGroup]).default(rbacGroup),
        kind: z.enum(kinds),
        name: z.string().min(1),
      })
      .describe('The role; it cannot be changed later.'),
  })
}

const accountNamespace: Rule = {
  at: 'subjects[]',
  cel: '',
  message: 'a service account has a namespace, others have none',
  holds: ({ kind, namespace }: Subject) =>
    (kind === 'ServiceAccount') === (namespace !== undefined && namespace !== '') || { field: 'namespace' },
}

const roleOf = {
  name: 'Role',
  type: 'string',
  path: '.roleRef.name',
  value: ({ roleRef }: { readonly roleRef?: { readonly kind: string; readonly name: string } }) =>
    roleRef && `${roleRef.kind}/${roleRef.name}`,
} as const

function subjectsOf(kind: Subject['kind'], name: string) {
  const value = ({ subjects = [] }: { readonly subjects?: readonly Subject[] }) =>
    subjects
      .filter((one) => one.kind === kind)
      .map((one) => (one.namespace ? `${one.namespace}/${one.name}` : one.name))
      .join(', ')
  return { name, type: 'string', path: '.subjects', priority: 1, value } as const
}

const bindingColumns = [
  roleOf,
  age,
  subjectsOf('User', 'Users'),
  subjectsOf('Group', 'Groups'),
  subjectsOf('ServiceAccount', 'ServiceAccounts'),
] as const

export const RoleBinding = defineResource({
  ...own,
  kind: 'RoleBinding',
  plural: 'rolebindings',
  description: "Kubernetes' RoleBinding: who has a role in its namespace.",
  body: bindingBody(['Role', 'ClusterRole']),
  rules: [accountNamespace],
  columns: bindingColumns,
})
export type RoleBinding = ObjectOf<typeof RoleBinding>

export const ClusterRoleBinding = defineResource({
  ...own,
  kind: 'ClusterRoleBinding',
  plural: 'clusterrolebindings',
  namespaced: false,
  description: "Kubernetes' ClusterRoleBinding: who has a role everywhere.",
  body: bindingBody(['ClusterRole']),
  rules: [accountNamespace],
  columns: bindingColumns,
})
export type ClusterRoleBinding = ObjectOf<typeof ClusterRoleBinding>

/** All of them. */
export const rbacKinds: readonly ResourceDefinition[] = [Role, ClusterRole, RoleBinding, ClusterRoleBinding]
