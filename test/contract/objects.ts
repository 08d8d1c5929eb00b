import { describe, expect, it } from 'vitest'
import { Namespace, StoragePool } from '../../src/resources/kinds.ts'
import type { ObjectStore } from '../../src/store/objects.ts'

const pool = (name: string): StoragePool =>
  ({
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'StoragePool',
    metadata: { name },
    spec: { path: '/p' },
  }) as StoragePool

/** What every ObjectStore promises. */
export function objectsContract(name: string, open: () => Promise<ObjectStore>): void {
  describe(`${name} as an ObjectStore`, () => {
    it('creates once, shows defaults, refuses bad names', async () => {
      const store = await open()
      const made = await store.create(StoragePool, pool('a'))
      expect(made.spec.shared).toBe(false)
      expect(made.metadata.generation).toBe(1)
      await expect(store.create(StoragePool, pool('a'))).rejects.toMatchObject({ reason: 'AlreadyExists' })
      await expect(store.create(StoragePool, pool('A_'))).rejects.toMatchObject({ reason: 'Invalid' })
      await expect(store.get(Namespace, { name: 'no' })).rejects.toThrow('namespaces "no" not found')
    })

    it('refuses a stale update; an unchanged one writes nothing; generation follows the spec', async () => {
      const store = await open()
      const first = await store.create(StoragePool, pool('a'))
      expect(await store.update(StoragePool, first)).toEqual(first)
      const second = await store.update(StoragePool, { ...first, spec: { ...first.spec, path: '/q' } })
      expect(second.metadata.generation).toBe(2)
      await expect(store.update(StoragePool, first)).rejects.toMatchObject({ reason: 'Conflict' })
    })

    it('keeps an object with finalizers until they are gone', async () => {
      const store = await open()
      const made = pool('a')
      await store.create(StoragePool, { ...made, metadata: { name: 'a', finalizers: ['x.io/y'] } })
      const marked = await store.delete(StoragePool, { name: 'a' })
      expect(marked.metadata.deletionTimestamp).toBeDefined()
      await store.update(StoragePool, { ...marked, metadata: { ...marked.metadata, finalizers: [] } })
      await expect(store.get(StoragePool, { name: 'a' })).rejects.toMatchObject({ reason: 'NotFound' })
    })
  })
}
