import { afterEach, beforeEach, expect, it } from 'vitest'
import { runNamespaces } from '../../../src/controllers/namespaces/start.ts'
import { systemClock } from '../../../src/lib/clock.ts'
import { silentLog } from '../../../src/lib/log.ts'
import type { KubeObject, ResourceDefinition } from '../../../src/resources/define.ts'
import { Event, kinds, Namespace, namespaceNamed } from '../../../src/resources/kinds.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { ApiError, isReason } from '../../../src/store/errors.ts'
import { KvObjects } from '../../../src/store/kv-objects.ts'
import { MemoryKv } from '../../../src/store/memory.ts'

const vm = VirtualMachine as ResourceDefinition
let objects: KvObjects
let failing: string | undefined
let stop: AbortController
let running: Promise<void>

beforeEach(async () => {
  failing = undefined
  objects = new (class extends KvObjects {
    override async list<T extends KubeObject>(kind: ResourceDefinition<T>, options = {}) {
      if (kind.kind === failing) throw new ApiError('ServiceUnavailable', 'no answer')
      return super.list(kind, options)
    }
  })(new MemoryKv(), { clock: systemClock, newUid: () => crypto.randomUUID() })
  for (const name of ['shop', 'other']) {
    await objects.create(Namespace, namespaceNamed(name))
    await create(vm, 'web', name)
  }
  stop = new AbortController()
  running = runNamespaces({ objects, kinds, clock: systemClock, log: silentLog }, stop.signal)
})
afterEach(async () => {
  stop.abort()
  await running
})

function create(kind: ResourceDefinition, name: string, namespace: string, metadata: object = {}) {
  const apiVersion = kind.group === '' ? 'v1' : 'plasmavmc.io/v1alpha1'
  const body = kind === vm ? { spec: { runStrategy: 'Halted' } } : {}
  return objects.create(kind, {
    ...{ apiVersion, kind: kind.kind, ...body },
    metadata: { name, namespace, ...metadata },
  } as KubeObject)
}

async function namespace(name: string): Promise<Namespace | undefined> {
  try {
    return await objects.get(Namespace, { name })
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}
const gone = (name: string) => expect.poll(() => namespace(name), { timeout: 8_000 }).toBe(undefined)
const count = async (kind: ResourceDefinition, name: string) =>
  (await objects.list(kind, { namespace: name })).items.length

it('a namespace goes with all that is in it, and nothing else', async () => {
  await create(Event as ResourceDefinition, 'web.1', 'shop')
  const marked = await objects.delete(Namespace, { name: 'shop' })
  expect(marked.status.phase).toBe('Terminating')
  await gone('shop')
  expect([await count(vm, 'shop'), await count(Event as ResourceDefinition, 'shop')]).toEqual([0, 0])
  expect([await count(vm, 'other'), (await namespace('other'))?.status.phase]).toEqual([1, 'Active'])
})

it('waits for finalizers, and says for which', async () => {
  const held = await create(vm, 'held', 'shop', { finalizers: ['plasmavmc.io/machine'] })
  await objects.delete(Namespace, { name: 'shop' })
  const messages = async () => (await namespace('shop'))?.status.conditions?.map(({ message }) => message)
  await expect
    .poll(messages, { timeout: 5_000 })
    .toEqual([
      'Some resources are remaining: virtualmachines.plasmavmc.io has 1 resource instances',
      'Some content in the namespace has finalizers remaining: plasmavmc.io/machine in 1 resource instances',
    ])
  const now = await objects.get(vm, held.metadata)
  expect(now.metadata.deletionTimestamp).toBeDefined()
  await objects.update(vm, { ...now, metadata: { ...now.metadata, finalizers: [] } })
  await gone('shop')
})

it('stays while what is in it cannot be listed', async () => {
  failing = 'Lease'
  await objects.delete(Namespace, { name: 'shop' })
  await expect.poll(() => count(vm, 'shop'), { timeout: 5_000 }).toBe(0)
  expect((await namespace('shop'))?.spec.finalizers).toEqual(['kubernetes'])
  failing = undefined
  await gone('shop')
})

it('what is written down late of what was in it goes, too', { timeout: 20_000 }, async () => {
  await objects.delete(Namespace, { name: 'shop' })
  await gone('shop')
  await create(Event as ResourceDefinition, 'late', 'shop')
  await expect.poll(() => count(Event as ResourceDefinition, 'shop'), { timeout: 15_000 }).toBe(0)
})

it("others' finalizers keep it", async () => {
  const made = await objects.create(Namespace, {
    ...namespaceNamed('third'),
    spec: { finalizers: ['kubernetes', 'x.io/y'] },
  })
  await objects.delete(Namespace, made.metadata)
  const finalizers = async () => (await namespace('third'))?.spec.finalizers
  await expect.poll(finalizers, { timeout: 5_000 }).toEqual(['x.io/y'])
})
