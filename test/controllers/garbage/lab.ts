import { runGarbage } from '../../../src/controllers/garbage/start.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { silentLog } from '../../../src/lib/log.ts'
import {
  apiVersionOf,
  type KubeObject,
  type OwnerReference,
  type ResourceDefinition,
} from '../../../src/resources/define.ts'
import { kinds, Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { isReason } from '../../../src/store/errors.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'

export const vm = VirtualMachine as ResourceDefinition
export const pool = StoragePool as ResourceDefinition
export const lease = Lease as ResourceDefinition

const specs = new Map<ResourceDefinition, object>([
  [vm, { runStrategy: 'Halted' }],
  [pool, { path: '/srv' }],
  [lease, {}],
])

export type Owner = Partial<OwnerReference> & { readonly of: KubeObject }

/** A store in memory, with a garbage collector that runs on `objects`, or on what `through` makes of them. */
export function garbageLab(through: (objects: KvObjects) => ObjectStore = (objects) => objects) {
  const kv = new MemoryKv()
  const objects = new KvObjects(kv, { clock: systemClock, newUid: () => crypto.randomUUID() })
  const stop = new AbortController()
  let running: Promise<void> | undefined
  const start = () => {
    const options = { kv, objects: through(objects), kinds, clock: systemClock, log: silentLog }
    running = runGarbage(options, stop.signal)
  }
  const create = (
    kind: ResourceDefinition,
    name: string,
    owners: readonly Owner[] = [],
    metadata: object = {},
  ): Promise<KubeObject> => {
    const ownerReferences = owners.map(({ of, ...change }) => ({
      ...{ apiVersion: of.apiVersion, kind: of.kind, name: of.metadata.name, uid: of.metadata.uid ?? '' },
      ...change,
    }))
    return objects.create(kind, {
      ...{ apiVersion: apiVersionOf(kind), kind: kind.kind, spec: specs.get(kind) },
      metadata: { name, ...(kind.namespaced && { namespace: 'default' }), ownerReferences, ...metadata },
    } as KubeObject)
  }
  const refOf = (kind: ResourceDefinition, name: string) =>
    kind.namespaced ? { name, namespace: 'default' } : { name }
  const get = async (kind: ResourceDefinition, name: string): Promise<KubeObject | undefined> => {
    try {
      return await objects.get(kind, refOf(kind, name))
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }
  const there = async (kind: ResourceDefinition, name: string) => (await get(kind, name)) !== undefined
  const remove = (
    kind: ResourceDefinition,
    name: string,
    propagation?: 'Background' | 'Foreground' | 'Orphan',
  ) => objects.delete(kind, refOf(kind, name), propagation ? { propagation } : {})
  const end = async () => {
    stop.abort()
    await running
  }
  return { kv, objects, start, create, get, there, remove, end }
}
