import { afterEach, describe, expect, it } from 'vitest'
import { ApiError } from '../../../src/store/errors.ts'
import type { KvObjects } from '../../../src/store/kv-objects.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'
import { garbageLab, lease, pool, vm } from './lab.ts'

type Lab = ReturnType<typeof garbageLab>
let lab: Lab
afterEach(() => lab.end())

function begin(through?: (objects: KvObjects) => ObjectStore): Lab {
  lab = garbageLab(through)
  lab.start()
  return lab
}
const gone = (kind: typeof vm, name: string) =>
  expect.poll(() => lab.there(kind, name), { timeout: 5_000 }).toBe(false)

/** When the collector has dealt with an object that it deletes, it has seen what was written before that. */
async function settled(): Promise<void> {
  const owner = await lab.create(pool, 'last')
  await lab.create(vm, 'last', [{ of: owner }])
  await lab.remove(pool, 'last')
  await gone(vm, 'last')
}

describe('background', () => {
  it('what has no owner any more goes, and what that owned', async () => {
    const { create, remove, there } = begin()
    const owner = await create(pool, 'p')
    const child = await create(vm, 'a', [{ of: owner }])
    await create(lease, 'l', [{ of: child }])
    await create(vm, 'free')
    await remove(pool, 'p')
    await gone(vm, 'a')
    await gone(lease, 'l')
    expect(await there(vm, 'free')).toBe(true)
  })

  it('an owner that was gone before anybody looked, by name or by uid, counts as gone', async () => {
    lab = garbageLab()
    const owner = await lab.create(pool, 'p')
    await lab.create(vm, 'a', [{ of: owner }])
    await lab.create(vm, 'b', [{ of: owner, uid: 'another' }])
    await lab.remove(pool, 'p')
    await lab.create(pool, 'p')
    lab.start()
    await gone(vm, 'a')
    await gone(vm, 'b')
    expect(await lab.there(pool, 'p')).toBe(true)
  })

  it('one owner left is enough; those that are gone are taken from it', async () => {
    const { create, remove, get } = begin()
    const [one, two] = [await create(pool, 'one'), await create(pool, 'two')]
    await create(vm, 'a', [{ of: one }, { of: two }])
    await remove(pool, 'one')
    const owners = async () => (await get(vm, 'a'))?.metadata.ownerReferences?.map(({ name }) => name)
    await expect.poll(owners, { timeout: 5_000 }).toEqual(['two'])
    await remove(pool, 'two')
    await gone(vm, 'a')
  })

  it('a machine goes through its own finalizer', async () => {
    const { create, remove, get, objects } = begin()
    const owner = await create(pool, 'p')
    await create(vm, 'a', [{ of: owner }], { finalizers: ['plasmavmc.io/machine'] })
    await remove(pool, 'p')
    const marked = async () => (await get(vm, 'a'))?.metadata.deletionTimestamp !== undefined
    await expect.poll(marked, { timeout: 5_000 }).toBe(true)
    await settled()
    const held = (await get(vm, 'a'))!
    expect(held.metadata.finalizers).toEqual(['plasmavmc.io/machine'])
    await objects.update(vm, { ...held, metadata: { ...held.metadata, finalizers: [] } })
    await gone(vm, 'a')
  })
})

describe('what stays', () => {
  it('an owner of a kind that nobody here knows, and a namespaced one of what is in no namespace', async () => {
    const { create, there } = begin()
    const owner = await create(vm, 'owner')
    await create(vm, 'a', [{ of: owner, apiVersion: 'apps/v1', kind: 'Deployment' }])
    await create(pool, 'p', [{ of: owner, uid: 'gone' }])
    await settled()
    expect([await there(vm, 'a'), await there(pool, 'p')]).toEqual([true, true])
  })

  it('while the owner cannot be read', async () => {
    let broken = true
    const { create, there, remove } = begin((objects) => {
      const get: ObjectStore['get'] = async (kind, ref) => {
        if (broken && kind.kind === 'StoragePool' && ref.name === 'p')
          throw new ApiError('ServiceUnavailable', 'no answer')
        return objects.get(kind, ref)
      }
      return new Proxy(objects, {
        get: (target, name) => {
          if (name === 'get') return get
          const value = Reflect.get(target, name) as unknown
          return typeof value === 'function' ? value.bind(target) : value
        },
      })
    })
    const owner = await create(pool, 'p')
    await create(vm, 'a', [{ of: owner }])
    await remove(pool, 'p')
    await settled()
    expect(await there(vm, 'a')).toBe(true)
    broken = false
    await gone(vm, 'a')
  })
})

describe('foreground', () => {
  it('an owner goes after what blocks it', async () => {
    const { create, remove, get, there, objects } = begin()
    const owner = await create(pool, 'p')
    await create(vm, 'a', [{ of: owner, blockOwnerDeletion: true }], { finalizers: ['x.io/y'] })
    const marked = await remove(pool, 'p', 'Foreground')
    expect(marked.metadata.finalizers).toEqual(['foregroundDeletion'])
    const deleting = async () => (await get(vm, 'a'))?.metadata.deletionTimestamp !== undefined
    await expect.poll(deleting, { timeout: 5_000 }).toBe(true)
    await settled()
    expect(await there(pool, 'p')).toBe(true)
    const held = (await get(vm, 'a'))!
    await objects.update(vm, { ...held, metadata: { ...held.metadata, finalizers: [] } })
    await gone(vm, 'a')
    await gone(pool, 'p')
  })

  it('goes down through all of them, and does not wait for what does not block', async () => {
    const { create, remove, there } = begin()
    const owner = await create(pool, 'p')
    const child = await create(vm, 'a', [{ of: owner, blockOwnerDeletion: true }])
    await create(lease, 'l', [{ of: child, blockOwnerDeletion: true }])
    await create(vm, 'slow', [{ of: owner }], { finalizers: ['x.io/y'] })
    await remove(pool, 'p', 'Foreground')
    await gone(pool, 'p')
    expect([await there(vm, 'a'), await there(lease, 'l'), await there(vm, 'slow')]).toEqual([
      false,
      false,
      true,
    ])
  })

  it('two that own each other do not wait for each other', async () => {
    const { create, remove, objects } = begin()
    const one = await create(vm, 'one')
    const two = await create(vm, 'two', [{ of: one, blockOwnerDeletion: true }])
    const { apiVersion, kind } = two
    const ownerReferences = [
      { apiVersion, kind, name: 'two', uid: two.metadata.uid ?? '', blockOwnerDeletion: true },
    ]
    await objects.update(vm, { ...one, metadata: { ...one.metadata, ownerReferences } })
    await remove(vm, 'one', 'Foreground')
    await gone(vm, 'one')
    await gone(vm, 'two')
  })
})

describe('orphan', () => {
  it('lets go of what it owned', async () => {
    const { create, remove, get } = begin()
    const owner = await create(pool, 'p')
    await create(vm, 'a', [{ of: owner }])
    const marked = await remove(pool, 'p', 'Orphan')
    expect(marked.metadata.finalizers).toEqual(['orphan'])
    await gone(pool, 'p')
    await settled()
    const left = await get(vm, 'a')
    expect([left?.metadata.deletionTimestamp, left?.metadata.ownerReferences]).toEqual([undefined, undefined])
  })
})
