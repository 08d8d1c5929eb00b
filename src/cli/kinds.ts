import { PlasmaError } from '../lib/errors.ts'
import { UsageError } from './failure.ts'
import { similarTo } from './similar.ts'

/** What a client needs of a kind. A test holds this list to src/resources, whose schemas take long to load. */
export interface ClientKind {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly shortNames: readonly string[]
  readonly namespaced: boolean
}

const own = { group: 'plasmavmc.io', version: 'v1alpha1' } as const
const core = { group: '', version: 'v1' } as const
const rbac = { group: 'rbac.authorization.k8s.io', version: 'v1', shortNames: [] } as const
const lease = { group: 'coordination.k8s.io', version: 'v1' } as const

export const clientKinds: readonly ClientKind[] = [
  { ...own, kind: 'VirtualMachine', plural: 'virtualmachines', shortNames: ['vm', 'vms'], namespaced: true },
  { ...own, kind: 'Host', plural: 'hosts', shortNames: [], namespaced: false },
  { ...own, kind: 'StoragePool', plural: 'storagepools', shortNames: ['sp'], namespaced: false },
  { ...lease, kind: 'Lease', plural: 'leases', shortNames: [], namespaced: true },
  { ...core, kind: 'Event', plural: 'events', shortNames: ['ev'], namespaced: true },
  { ...core, kind: 'Namespace', plural: 'namespaces', shortNames: ['ns'], namespaced: false },
  { ...own, kind: 'FenceEvidence', plural: 'fenceevidences', shortNames: ['fe'], namespaced: false },
  { ...own, kind: 'AccessKey', plural: 'accesskeys', shortNames: ['ak'], namespaced: false },
  { ...core, kind: 'ConfigMap', plural: 'configmaps', shortNames: ['cm'], namespaced: true },
  { ...core, kind: 'Secret', plural: 'secrets', shortNames: [], namespaced: true },
  { ...rbac, kind: 'Role', plural: 'roles', namespaced: true },
  { ...rbac, kind: 'ClusterRole', plural: 'clusterroles', namespaced: false },
  { ...rbac, kind: 'RoleBinding', plural: 'rolebindings', namespaced: true },
  { ...rbac, kind: 'ClusterRoleBinding', plural: 'clusterrolebindings', namespaced: false },
]

const namesOf = (k: ClientKind) => [k.plural, k.kind.toLowerCase(), ...k.shortNames]

/** The kind of `vm`, `vms`, `VirtualMachine` or `virtualmachines.plasmavmc.io`. @throws UsageError */
export function kindOf(word: string): ClientKind {
  const [name = '', ...rest] = word.toLowerCase().split('.')
  const group = rest.join('.')
  const found = clientKinds.find((k) => namesOf(k).includes(name) && (group === '' || group === k.group))
  if (found) return found
  const known = clientKinds.map((k) => k.shortNames[0] ?? k.plural).join(', ')
  const similar = similarTo(name, clientKinds.flatMap(namesOf))
  throw new UsageError(
    `the server doesn't have a resource type "${word}"`,
    similar ? `did you mean ${similar}?` : `types are: ${known}`,
  )
}

/** The kind a manifest names. @throws PlasmaError `NoKind` where this system has no such kind */
export function kindOfManifest(apiVersion: string, kind: string): ClientKind {
  const found = clientKinds.find((k) => k.kind === kind && apiVersionOf(k) === apiVersion)
  if (found) return found
  const name = similarTo(
    kind,
    clientKinds.map((k) => k.kind),
  )
  const similar = clientKinds.find((k) => k.kind === name)
  throw new PlasmaError('NoKind', `no matches for kind "${kind}" in version "${apiVersion}"`, {
    hint: similar
      ? `did you mean kind ${similar.kind} of apiVersion ${apiVersionOf(similar)}?`
      : `kinds are: ${clientKinds.map((k) => `${k.kind} (${apiVersionOf(k)})`).join(', ')}`,
  })
}

/** `apiVersion` of a kind's manifests. */
export function apiVersionOf(kind: ClientKind): string {
  return kind.group === '' ? kind.version : `${kind.group}/${kind.version}`
}

/** REST path of a collection, or of one object of it. Without a namespace: across all of them. */
export function pathOf(kind: ClientKind, namespace?: string, name?: string): string {
  const root = kind.group === '' ? `/api/${kind.version}` : `/apis/${kind.group}/${kind.version}`
  const space =
    kind.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : ''
  return `${root}${space}/${kind.plural}${name === undefined ? '' : `/${encodeURIComponent(name)}`}`
}

/** `virtualmachine.plasmavmc.io/web`, as kubectl names an object. */
export function nameOf(kind: ClientKind, name: string): string {
  return `${kind.kind.toLowerCase()}${kind.group === '' ? '' : `.${kind.group}`}/${name}`
}
