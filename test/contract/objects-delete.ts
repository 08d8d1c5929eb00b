import { describe, expect, it } from 'vitest'
import { Namespace, namespaceNamed, StoragePool } from '../../src/resources/kinds.ts'
import { type ObjectsLab, pool } from './objects.ts'

const ref = { name: 'a' }
const gone = { reason: 'NotFound' }
const finalizers = ['x.io/one', 'x.io/two']

/** What every ObjectStore promises about deletion. */
export function objectsDeleteContract(name: string, lab: ObjectsLab): void {
  describe(`${name} as an ObjectStore: deletion`, () => {
    it('removes at once what nobody holds, and shows it as it was', async () => {
      const store = await lab.open()
      const made = await store.create(StoragePool, pool('a'))
      const deleted = await store.delete(StoragePool, ref)
      expect(deleted).toMatchObject({ spec: made.spec, metadata: { uid: made.metadata.uid } })
      await expect(store.get(StoragePool, ref)).rejects.toMatchObject(gone)
      const again = await store.create(StoragePool, pool('a'))
      expect(again.metadata.uid).not.toBe(made.metadata.uid)
    })

    it('keeps what has finalizers until the last is gone; meanwhile none can be added', async () => {
      const store = await lab.open()
      const made = await store.create(StoragePool, pool('a', {}, { finalizers }))
      const marked = await store.delete(StoragePool, ref)
      expect(marked.metadata.deletionTimestamp).toBeDefined()
      expect(marked.metadata.generation).toBe((made.metadata.generation ?? 0) + 1)
      // A second deletion changes nothing, not even the time.
      expect(await store.delete(StoragePool, ref)).toEqual(marked)
      const more = { ...marked.metadata, finalizers: ['x.io/two', 'x.io/three'] }
      await expect(store.update(StoragePool, { ...marked, metadata: more })).rejects.toMatchObject({
        reason: 'Invalid',
        message: expect.stringMatching(
          /metadata\.finalizers: Forbidden: no new finalizers can be added .*"x\.io\/three"/,
        ),
      })
      const less = { ...marked.metadata, finalizers: ['x.io/two'] }
      const fewer = await store.update(StoragePool, { ...marked, metadata: less })
      expect(fewer.metadata.finalizers).toEqual(['x.io/two'])
      const undone = { ...fewer.metadata, deletionTimestamp: undefined as never }
      const still = await store.update(StoragePool, { ...fewer, metadata: undone })
      expect(still.metadata.deletionTimestamp).toBe(marked.metadata.deletionTimestamp)
      const status = await store.updateStatus(StoragePool, {
        ...still,
        status: { conditions: [], available: '1' },
      })
      const none = { ...status.metadata, finalizers: [] }
      await store.update(StoragePool, { ...status, metadata: none })
      await expect(store.get(StoragePool, ref)).rejects.toMatchObject(gone)
    })

    it('goes as it is told what is to become of what it owns', async () => {
      const store = await lab.open()
      await store.create(StoragePool, pool('a', {}, { finalizers: ['x.io/one'] }))
      const marked = async (propagation?: 'Background' | 'Foreground' | 'Orphan') =>
        (await store.delete(StoragePool, ref, propagation ? { propagation } : {})).metadata
      const first = await marked('Foreground')
      expect(first.finalizers).toEqual(['x.io/one', 'foregroundDeletion'])
      // Unsaid, it stays as it is; said anew, it changes.
      expect((await marked()).finalizers).toEqual(['x.io/one', 'foregroundDeletion'])
      const second = await marked('Orphan')
      expect([second.finalizers, second.deletionTimestamp]).toEqual([
        ['x.io/one', 'orphan'],
        first.deletionTimestamp,
      ])
      expect((await marked('Background')).finalizers).toEqual(['x.io/one'])
    })

    it('a namespace is held by the finalizers of its spec, which only finalizing takes away', async () => {
      const store = await lab.open()
      const made = await store.create(Namespace, namespaceNamed('shop'))
      expect(made.status.phase).toBe('Active')
      await store.update(Namespace, { ...made, spec: { finalizers: [] } })
      const marked = await store.delete(Namespace, { name: 'shop' })
      expect([marked.spec.finalizers, marked.status.phase]).toEqual([['kubernetes'], 'Terminating'])
      const changed = {
        ...marked,
        metadata: { ...marked.metadata, labels: { a: 'b' } },
        spec: { finalizers: [] },
      }
      const done = await store.update(Namespace, changed, { finalize: true })
      if (!lab.foreign) expect(done.metadata.labels).not.toHaveProperty('a')
      await expect(store.get(Namespace, { name: 'shop' })).rejects.toMatchObject(gone)
    })

    it('holds to preconditions', async () => {
      const store = await lab.open()
      const { metadata } = await store.create(StoragePool, pool('a'))
      const { uid = '', resourceVersion = '' } = metadata
      for (const wrong of [{ uid: 'x' }, { resourceVersion: '0' }, { uid, resourceVersion: '0' }])
        await expect(store.delete(StoragePool, ref, wrong)).rejects.toMatchObject({ reason: 'Conflict' })
      await store.delete(StoragePool, ref, { uid, resourceVersion })
      await expect(store.get(StoragePool, ref)).rejects.toMatchObject(gone)
    })

    it('comes through while others write, and takes with it what they wrote last', async () => {
      const store = await lab.open()
      await store.create(StoragePool, pool('a'))
      const writer = async () => {
        for (let i = 0; i < 20; i += 1) {
          const one = await store.get(StoragePool, ref)
          await store.updateStatus(StoragePool, { ...one, status: { conditions: [], available: `${i}` } })
        }
      }
      const writing = writer().catch((error: { reason: string }) => error.reason)
      await store.delete(StoragePool, ref)
      expect([undefined, 'NotFound', 'Conflict']).toContain(await writing)
      await expect(store.get(StoragePool, ref)).rejects.toMatchObject(gone)
    })
  })
}
