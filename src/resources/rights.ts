import { group } from './define.ts'
import { systemNamespace } from './host-lease.ts'

/** Kubernetes' verbs on the objects of one resource, `hosts/status` for a subresource. */
export interface Right {
  readonly group: string
  readonly resources: readonly string[]
  readonly verbs: readonly string[]
  /** Only there; everywhere where absent. */
  readonly namespace?: string
}

/** What a role of a server asks of the API of `--store kubernetes`, and no more: the RBAC of deploy/kubernetes is made from it. */
export interface RoleRights {
  readonly role: 'agent' | 'controller'
  readonly rights: readonly Right[]
}

const leases = { group: 'coordination.k8s.io', resources: ['leases'], namespace: systemNamespace }
/** An event that happens again is counted. */
const events: Right = { group: '', resources: ['events'], verbs: ['get', 'create', 'update'] }

export const roleRights: readonly RoleRights[] = [
  {
    role: 'agent',
    rights: [
      // Its finalizer is written with the machine itself.
      { group, resources: ['virtualmachines'], verbs: ['get', 'list', 'watch', 'update'] },
      { group, resources: ['hosts'], verbs: ['get', 'list', 'watch', 'create', 'update'] },
      { group, resources: ['storagepools'], verbs: ['list', 'watch'] },
      {
        group,
        resources: ['virtualmachines/status', 'hosts/status', 'storagepools/status'],
        verbs: ['update'],
      },
      { group, resources: ['fenceevidences'], verbs: ['get', 'list'] },
      { ...leases, verbs: ['get', 'list', 'create', 'update'] },
      events,
    ],
  },
  {
    role: 'controller',
    rights: [
      { group, resources: ['virtualmachines', 'hosts'], verbs: ['get', 'list', 'watch'] },
      { group, resources: ['storagepools'], verbs: ['list', 'watch'] },
      { group, resources: ['virtualmachines/status', 'hosts/status'], verbs: ['update'] },
      { group, resources: ['fenceevidences'], verbs: ['get', 'list', 'watch', 'create', 'delete'] },
      { ...leases, verbs: ['get', 'list', 'watch', 'create', 'update', 'delete'] },
      events,
    ],
  },
]

/** Whether a role may do this, as Kubernetes' RBAC decides it. */
export function mayDo(
  role: RoleRights['role'],
  asked: {
    readonly verb: string
    readonly group: string
    readonly resource: string
    readonly subresource?: string
    readonly namespace?: string
  },
): boolean {
  const { subresource, namespace } = asked
  const resource = subresource === undefined ? asked.resource : `${asked.resource}/${subresource}`
  return roleRights
    .filter((one) => one.role === role)
    .flatMap(({ rights }) => rights)
    .some(
      (right) =>
        right.group === asked.group &&
        right.resources.includes(resource) &&
        right.verbs.includes(asked.verb) &&
        (right.namespace === undefined || right.namespace === namespace),
    )
}
