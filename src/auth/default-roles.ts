import { group as ownGroup } from '../resources/define.ts'
import { FenceEvidence } from '../resources/fence-evidence.ts'
import { Host } from '../resources/host.ts'
import { ConfigMap, Event, Namespace, Secret, StoragePool } from '../resources/kinds.ts'
import {
  type ClusterRole,
  type ClusterRoleBinding,
  type PolicyRule,
  Role,
  RoleBinding,
  rbacGroup,
} from '../resources/rbac.ts'
import {
  SelfSubjectAccessReview,
  SelfSubjectReview,
  SelfSubjectRulesReview,
  SubjectAccessReview,
} from '../resources/reviews.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { actionOf } from '../resources/vm-actions.ts'
import { everything } from './authorize.ts'
import { authenticatedGroup, mastersGroup } from './identity.ts'
import { uncovered } from './rules-cover.ts'

const read = ['get', 'list', 'watch']
const write = ['create', 'delete', 'deletecollection', 'patch', 'update']
const vms = VirtualMachine.plural

const viewRules: readonly PolicyRule[] = [
  { verbs: read, apiGroups: [ownGroup], resources: [vms, `${vms}/log`, `${vms}/status`] },
  {
    verbs: read,
    apiGroups: [ownGroup],
    resources: [Host, StoragePool, FenceEvidence].map(({ plural }) => plural),
  },
  { verbs: read, apiGroups: [''], resources: [ConfigMap.plural, Event.plural, Namespace.plural] },
]

const editRules: readonly PolicyRule[] = [
  ...viewRules,
  { verbs: write, apiGroups: [ownGroup], resources: [vms] },
  { verbs: write, apiGroups: [''], resources: [ConfigMap.plural] },
  { verbs: [...read, ...write], apiGroups: [''], resources: [Secret.plural] },
  {
    verbs: ['create'],
    apiGroups: [ownGroup],
    resources: Object.keys(actionOf).map((action) => `${vms}/${action}`),
  },
  { verbs: ['get'], apiGroups: [ownGroup], resources: [`${vms}/console`, `${vms}/vnc`] },
]

const adminRules: readonly PolicyRule[] = [
  ...editRules,
  { verbs: [...read, ...write], apiGroups: [rbacGroup], resources: [Role.plural, RoleBinding.plural] },
]

const discoveryPaths = ['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*']

const basicRules: readonly PolicyRule[] = [
  { verbs: ['create'], apiGroups: [SelfSubjectReview.group], resources: [SelfSubjectReview.plural] },
  {
    verbs: ['create'],
    apiGroups: [SelfSubjectAccessReview.group],
    resources: [SelfSubjectAccessReview.plural, SelfSubjectRulesReview.plural],
  },
]

const delegatorRules: readonly PolicyRule[] = [
  { verbs: ['create'], apiGroups: [SubjectAccessReview.group], resources: [SubjectAccessReview.plural] },
]

const metadata = (name: string) => ({
  name,
  annotations: { 'rbac.authorization.kubernetes.io/autoupdate': 'true' },
  labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults' },
})

const roles: Readonly<Record<string, readonly PolicyRule[]>> = {
  'cluster-admin': everything,
  admin: adminRules,
  edit: editRules,
  view: viewRules,
  'system:basic-user': basicRules,
  'system:discovery': [{ verbs: ['get'], nonResourceURLs: discoveryPaths }],
  'system:auth-delegator': delegatorRules,
}

/** The ClusterRoles that every server has, by Kubernetes' names. */
export const defaultClusterRoles: readonly ClusterRole[] = Object.entries(roles).map(([name, rules]) => ({
  apiVersion: `${rbacGroup}/v1`,
  kind: 'ClusterRole',
  metadata: metadata(name),
  rules: [...rules],
}))

const bound: Readonly<Record<string, string>> = {
  'cluster-admin': mastersGroup,
  'system:basic-user': authenticatedGroup,
  'system:discovery': authenticatedGroup,
}

/** Who has which of them from the start. */
export const defaultClusterRoleBindings: readonly ClusterRoleBinding[] = Object.entries(bound).map(
  ([name, group]) => ({
    apiVersion: `${rbacGroup}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: metadata(name),
    roleRef: { apiGroup: rbacGroup, kind: 'ClusterRole', name },
    subjects: [{ kind: 'Group', apiGroup: rbacGroup, name: group }],
  }),
)

/**
 * A default role as it is to be, where the one that is there lacks something that this version needs: rules are added,
 * never taken away, and one whose annotation `autoupdate` is not `true` is its owner's (Kubernetes: "Auto-reconciliation").
 * @returns undefined where it is as it should be
 */
export function amended(there: ClusterRole, wanted: ClusterRole): ClusterRole | undefined {
  if (there.metadata.annotations?.['rbac.authorization.kubernetes.io/autoupdate'] !== 'true') return undefined
  const missing = uncovered(there.rules, wanted.rules)
  return missing.length === 0 ? undefined : { ...there, rules: [...there.rules, ...missing] }
}
