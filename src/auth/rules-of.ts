import type {
  ClusterRole,
  ClusterRoleBinding,
  PolicyRule,
  Role,
  RoleBinding,
  Subject,
} from '../resources/rbac.ts'
import type { Identity } from './identity.ts'

/** All roles and bindings that there are. */
export interface Grants {
  readonly roles: readonly Role[]
  readonly clusterRoles: readonly ClusterRole[]
  readonly roleBindings: readonly RoleBinding[]
  readonly clusterRoleBindings: readonly ClusterRoleBinding[]
}

/** What one subject has: everywhere, and by namespace. */
interface Granted {
  readonly everywhere: PolicyRule[]
  readonly inNamespace: Map<string, PolicyRule[]>
}

/** Grants by whom they are for, so that a question costs no walk through all bindings. */
export type GrantIndex = ReadonlyMap<string, Granted>

export const noGrants: GrantIndex = new Map()

/** `User:alice`; a service account is the user that Kubernetes gives it. */
function keyOf({ kind, name, namespace }: Subject): string {
  return kind === 'ServiceAccount' ? `User:system:serviceaccount:${namespace}:${name}` : `${kind}:${name}`
}

/** Resolves bindings to rules. A binding whose role is not there grants nothing, and does so once it is. */
export function indexGrants(grants: Grants): GrantIndex {
  const rolesByKey = new Map(
    grants.roles.map((role) => [`${role.metadata.namespace}/${role.metadata.name}`, role]),
  )
  const clusterRoles = new Map(grants.clusterRoles.map((role) => [role.metadata.name, role]))
  const index = new Map<string, Granted>()
  const of = (subject: Subject) => {
    const key = keyOf(subject)
    const known = index.get(key) ?? { everywhere: [], inNamespace: new Map<string, PolicyRule[]>() }
    index.set(key, known)
    return known
  }
  for (const { roleRef, subjects } of grants.clusterRoleBindings) {
    const rules = clusterRoles.get(roleRef.name)?.rules ?? []
    for (const subject of subjects) of(subject).everywhere.push(...rules)
  }
  for (const { roleRef, subjects, metadata } of grants.roleBindings) {
    const { namespace = '' } = metadata
    const role =
      roleRef.kind === 'Role'
        ? rolesByKey.get(`${namespace}/${roleRef.name}`)
        : clusterRoles.get(roleRef.name)
    for (const subject of subjects) {
      const { inNamespace } = of(subject)
      const rules = inNamespace.get(namespace) ?? []
      rules.push(...(role?.rules ?? []))
      inNamespace.set(namespace, rules)
    }
  }
  return index
}

/** The rules of an identity and its groups: those it has everywhere, and those of the namespace where one is named. */
export function rulesOf(
  index: GrantIndex,
  { name, groups }: Identity,
  namespace?: string,
): readonly PolicyRule[] {
  return [`User:${name}`, ...groups.map((group) => `Group:${group}`)].flatMap((key) => {
    const granted = index.get(key)
    if (!granted) return []
    const local = namespace === undefined ? [] : (granted.inNamespace.get(namespace) ?? [])
    return [...granted.everywhere, ...local]
  })
}
