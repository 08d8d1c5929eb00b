import { z } from 'zod'
import { AccessKey } from './access-key.ts'
import { conditions } from './conditions.ts'
import { ConfigMap } from './config-map.ts'
import { defineResource, type ObjectOf, type ResourceDefinition } from './define.ts'
import { FenceEvidence } from './fence-evidence.ts'
import { Host } from './host.ts'
import { quantity } from './quantity.ts'
import { rbacKinds } from './rbac.ts'
import { Secret } from './secret.ts'
import { VirtualMachine } from './vm.ts'

const age = { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' } as const

export const StoragePool = defineResource({
  kind: 'StoragePool',
  plural: 'storagepools',
  shortNames: ['sp'],
  categories: ['plasmavmc'],
  namespaced: false,
  description: 'A directory on the hosts in which disks are kept.',
  body: z.object({
    spec: z.object({
      path: z.string().startsWith('/', 'must be an absolute path').describe('Directory on the host.'),
      capacity: quantity('What the disks may claim in all; unlimited where absent.').optional(),
      shared: z.boolean().default(false).describe('Every host sees the same files there.'),
    }),
    status: z.object({ available: z.string().optional(), conditions }).optional(),
  }),
  columns: [
    { name: 'Path', type: 'string', path: '.spec.path' },
    { name: 'Capacity', type: 'string', path: '.spec.capacity' },
    { name: 'Available', type: 'string', path: '.status.available' },
    age,
  ],
})
export type StoragePool = ObjectOf<typeof StoragePool>

export const Lease = defineResource({
  group: 'coordination.k8s.io',
  version: 'v1',
  kind: 'Lease',
  plural: 'leases',
  hasStatus: false,
  description: "Kubernetes' Lease: who holds something, renewed by compare-and-swap.",
  body: z.object({
    spec: z
      .object({
        holderIdentity: z.string().optional(),
        leaseDurationSeconds: z.int().optional(),
        acquireTime: z.string().optional(),
        renewTime: z.string().optional(),
        leaseTransitions: z.int().optional(),
      })
      .prefault({}),
  }),
  columns: [{ name: 'Holder', type: 'string', path: '.spec.holderIdentity' }, age],
})
export type Lease = ObjectOf<typeof Lease>

/** What an event is about, as Kubernetes shows it: `virtualmachine/web`. */
function objectOf({ involvedObject }: { involvedObject?: { kind?: string; name?: string } }): string {
  const { kind = '', name = '' } = involvedObject ?? {}
  return kind === '' ? name : `${kind.toLowerCase()}/${name}`
}

export const Event = defineResource({
  group: '',
  version: 'v1',
  kind: 'Event',
  plural: 'events',
  shortNames: ['ev'],
  hasStatus: false,
  selectable: [
    ...['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'].map(
      (name) => `involvedObject.${name}`,
    ),
    ...['reason', 'reportingComponent', 'source', 'type'],
  ],
  description: "Kubernetes' Event: what happened to an object.",
  body: z.object({
    involvedObject: z
      .object({
        apiVersion: z.string().optional(),
        kind: z.string().optional(),
        namespace: z.string().optional(),
        name: z.string().optional(),
        uid: z.string().optional(),
        resourceVersion: z.string().optional(),
        fieldPath: z.string().optional(),
      })
      .prefault({}),
    reason: z.string().optional(),
    message: z.string().optional(),
    type: z.enum(['Normal', 'Warning']).default('Normal'),
    count: z.int().optional(),
    firstTimestamp: z.string().optional(),
    lastTimestamp: z.string().optional(),
    eventTime: z.string().nullable().optional(),
    action: z.string().optional(),
    reportingComponent: z.string().optional(),
    reportingInstance: z.string().optional(),
    source: z.object({ component: z.string().optional(), host: z.string().optional() }).optional(),
  }),
  columns: [
    { name: 'Last Seen', type: 'date', path: '.lastTimestamp' },
    { name: 'Type', type: 'string', path: '.type' },
    { name: 'Reason', type: 'string', path: '.reason' },
    { name: 'Object', type: 'string', path: '.involvedObject.name', value: objectOf },
    { name: 'Source', type: 'string', path: '.source.component', priority: 1 },
    { name: 'Message', type: 'string', path: '.message' },
    { name: 'First Seen', type: 'date', path: '.firstTimestamp', priority: 1 },
    { name: 'Count', type: 'integer', path: '.count', priority: 1 },
    { name: 'Name', type: 'string', path: '.metadata.name', priority: 1 },
  ],
})
export type Event = ObjectOf<typeof Event>

export const Namespace = defineResource({
  group: '',
  version: 'v1',
  kind: 'Namespace',
  plural: 'namespaces',
  shortNames: ['ns'],
  namespaced: false,
  finalized: true,
  nameLabel: 'kubernetes.io/metadata.name',
  selectable: ['status.phase'],
  description: "Kubernetes' Namespace.",
  body: z.object({
    spec: z
      .object({
        finalizers: z
          .array(z.string())
          .default(['kubernetes'])
          .describe('Who must finish before the namespace goes.'),
      })
      .prefault({}),
    status: z
      .object({
        phase: z.enum(['Active', 'Terminating']).default('Active').describe('Whether it is being deleted.'),
        conditions: conditions.optional().describe('Why it is not gone yet.'),
      })
      .prefault({}),
  }),
  columns: [{ name: 'Status', type: 'string', path: '.status.phase' }, age],
})
export type Namespace = ObjectOf<typeof Namespace>

/** A new namespace. */
export const namespaceNamed = (name: string): Namespace => ({
  ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name } },
  ...{ spec: { finalizers: ['kubernetes'] }, status: { phase: 'Active' } },
})

export { ConfigMap } from './config-map.ts'
export { Host } from './host.ts'
export { Secret } from './secret.ts'

/** Every kind this system serves. */
export const kinds: readonly ResourceDefinition[] = [
  VirtualMachine,
  Host,
  StoragePool,
  Lease,
  Event,
  Namespace,
  FenceEvidence,
  AccessKey,
  ConfigMap,
  Secret,
  ...rbacKinds,
] as const

/** Finds a kind by plural, singular, short name or kind, case-insensitive, with an optional `.group` suffix. */
export function findKind(word: string): ResourceDefinition | undefined {
  const [name = '', ...rest] = word.toLowerCase().split('.')
  const wanted = rest.join('.')
  return kinds.find(
    (k) =>
      (wanted === '' || k.group === wanted) &&
      (k.plural === name ||
        k.singular === name ||
        k.kind.toLowerCase() === name ||
        k.shortNames.includes(name)),
  )
}
