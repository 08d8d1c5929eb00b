/** Kubernetes' RBAC for deploy/kubernetes, from the table of what each role really asks for. */
import { stringify } from 'yaml'
import { group } from '../src/resources/define.ts'
import { systemNamespace } from '../src/resources/host-lease.ts'
import { kinds } from '../src/resources/kinds.ts'
import { type Right, type RoleRights, roleRights } from '../src/resources/rights.ts'

export const rbacFile = 'deploy/kubernetes/base/rbac.yaml'

const apiGroup = 'rbac.authorization.k8s.io'
const apiVersion = `${apiGroup}/v1`

const ruleOf = ({ group: name, resources, verbs }: Right) => ({ apiGroups: [name], resources, verbs })

/** The objects that give a role its rights: an account, what holds everywhere, and what holds in one namespace. */
function objectsOf({ role, rights }: RoleRights): object[] {
  const name = `plasmavmc-${role}`
  const namespace = systemNamespace
  const subjects = [{ kind: 'ServiceAccount', name, namespace }]
  const everywhere = rights.filter((right) => right.namespace === undefined)
  const local = [
    ...Map.groupBy(
      rights.filter((right) => right.namespace !== undefined),
      (right) => right.namespace,
    ),
  ]
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
    { apiVersion, kind: 'ClusterRole', metadata: { name }, rules: everywhere.map(ruleOf) },
    {
      ...{ apiVersion, kind: 'ClusterRoleBinding', metadata: { name } },
      ...{ roleRef: { apiGroup, kind: 'ClusterRole', name }, subjects },
    },
    ...local.flatMap(([place, some]) => [
      { apiVersion, kind: 'Role', metadata: { name, namespace: place }, rules: some.map(ruleOf) },
      {
        ...{ apiVersion, kind: 'RoleBinding', metadata: { name, namespace: place } },
        ...{ roleRef: { apiGroup, kind: 'Role', name }, subjects },
      },
    ]),
  ]
}

const people = ['create', 'delete', 'deletecollection', 'patch', 'update']

/** People who may see or change what is in a namespace may do so with machines: Kubernetes adds these to its own roles. */
function forPeople(): object[] {
  const resources = kinds.filter((kind) => kind.group === group && kind.namespaced).map((kind) => kind.plural)
  const role = (name: string, to: readonly string[], verbs: readonly string[]) => ({
    ...{ apiVersion, kind: 'ClusterRole' },
    metadata: {
      name: `plasmavmc-${name}`,
      labels: Object.fromEntries(to.map((one) => [`${apiGroup}/aggregate-to-${one}`, 'true'])),
    },
    rules: [{ apiGroups: [group], resources, verbs }],
  })
  return [
    role('machines-view', ['view', 'edit', 'admin'], ['get', 'list', 'watch']),
    role('machines-edit', ['edit', 'admin'], people),
  ]
}

/** Every object, as YAML. */
export function rbacYaml(): string {
  const objects = [...roleRights.flatMap(objectsOf), ...forPeople()]
  return objects
    .map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false }))
    .join('---\n')
}
