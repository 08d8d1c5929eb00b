import { describe, expect, it } from 'vitest'
import { StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import type { ObjectStore, WatchEvent } from '../../src/store/objects.ts'
import { type ObjectsLab, pool, vm } from './objects.ts'

type Scope = { namespace?: string; labelSelector?: string }

/** The first `count` events after a version. */
async function take(store: ObjectStore, resourceVersion: string, count: number, scope: Scope = {}) {
  const stop = new AbortController()
  const seen: WatchEvent<StoragePool>[] = []
  for await (const event of store.watch(StoragePool, { ...scope, resourceVersion, signal: stop.signal })) {
    if (seen.push(event) === count) stop.abort()
  }
  return seen
}

const told = ({ type, object }: WatchEvent<StoragePool>) =>
  `${type} ${object.metadata.name} ${object.spec.path}`

async function set(store: ObjectStore, name: string, path: string, labels?: Record<string, string>) {
  const one = await store.get(StoragePool, { name })
  const metadata = { ...one.metadata, ...(labels && { labels }) }
  return store.update(StoragePool, { ...one, metadata, spec: { ...one.spec, path } })
}

const now = async (store: ObjectStore) => (await store.list(StoragePool)).resourceVersion

/** What every ObjectStore promises to watchers. */
export function objectsWatchContract(name: string, lab: ObjectsLab): void {
  const forgetful = it.skipIf(lab.foreign === true)
  describe(`${name} as an ObjectStore: watches`, () => {
    it('tells the life of an object whole, with defaults, each event under its own version', async () => {
      const store = await lab.open()
      const watching = take(store, await now(store), 4)
      await store.create(StoragePool, pool('a'))
      await set(store, 'a', '/q')
      await store.delete(StoragePool, { name: 'a' })
      const again = await store.create(StoragePool, pool('a', { path: '/r' }))
      const seen = await watching
      expect(seen.map(told)).toEqual(['ADDED a /p', 'MODIFIED a /q', 'DELETED a /q', 'ADDED a /r'])
      expect(seen.map(({ object }) => object.spec.shared)).toEqual([false, false, false, false])
      expect(new Set(seen.map(({ object }) => object.metadata.resourceVersion)).size).toBe(4)
      expect(seen[3]?.object).toEqual(again)
      expect(seen[3]?.object.metadata.uid).not.toBe(seen[2]?.object.metadata.uid)
    })

    it('goes on exactly after any version that a list or an event named', async () => {
      const store = await lab.open()
      const start = await now(store)
      for (const one of ['a', 'b', 'c', 'd']) await store.create(StoragePool, pool(one))
      const all = await take(store, start, 4)
      for (const [i, { object }] of all.slice(0, 3).entries()) {
        const rest = await take(store, object.metadata.resourceVersion ?? '', 3 - i)
        expect(rest).toEqual(all.slice(i + 1))
      }
    })

    it('tells who selects by label of what comes to fit and what no longer does, as it last fitted', async () => {
      const store = await lab.open()
      const scope = { labelSelector: 'tier=front' }
      const watching = take(store, await now(store), 5, scope)
      await store.create(StoragePool, pool('other', {}, { labels: { tier: 'back' } }))
      await store.create(StoragePool, pool('a'))
      await set(store, 'a', '/1', { tier: 'front' })
      await set(store, 'a', '/2')
      await set(store, 'a', '/3', { tier: 'back' })
      await set(store, 'a', '/4')
      await set(store, 'a', '/5', { tier: 'front' })
      await store.delete(StoragePool, { name: 'a' })
      expect((await watching).map(told)).toEqual([
        ...['ADDED a /1', 'MODIFIED a /2', 'DELETED a /2', 'ADDED a /5', 'DELETED a /5'],
      ])
    })

    it('is about one namespace, where one is named', async () => {
      const store = await lab.open()
      const stop = new AbortController()
      const options = { namespace: 'a', resourceVersion: await now(store), signal: stop.signal }
      const watch = store.watch(VirtualMachine, options)[Symbol.asyncIterator]()
      const next = watch.next()
      for (const namespace of ['b', 'a-b', 'a'])
        await store.create(VirtualMachine, vm('x', {}, { namespace }))
      expect((await next).value?.object.metadata.namespace).toBe('a')
      stop.abort()
      await watch.next()
    })

    it('loses and repeats nothing while many write', async () => {
      const store = await lab.open()
      // Not from 0, which is no moment to Kubernetes.
      const from = await now(store)
      const watching = [0, 1].map(async () => take(store, from, 160))
      const writer = async (id: number) => {
        for (let i = 0; i < 10; i += 1) {
          await store.create(StoragePool, pool(`p${id}`, { path: `/${i}` }))
          await set(store, `p${id}`, `/${i}x`)
          await store.delete(StoragePool, { name: `p${id}` })
          await store.create(StoragePool, pool(`q${id}-${i}`))
        }
      }
      await Promise.all([0, 1, 2, 3].map(writer))
      const live = await Promise.all(watching)
      for (const seen of [...live, await take(store, from, 160)]) {
        const versions = seen.map(({ object }) => Number(object.metadata.resourceVersion))
        expect(versions).toEqual([...new Set(versions)].sort((a, b) => a - b))
        for (const id of [0, 1, 2, 3]) {
          const life = seen.filter(({ object }) => object.metadata.name === `p${id}`).map(told)
          expect(life).toEqual(
            Array.from({ length: 10 }, (_, i) => [
              ...[`ADDED p${id} /${i}`, `MODIFIED p${id} /${i}x`, `DELETED p${id} /${i}x`],
            ]).flat(),
          )
        }
      }
    })

    it('gives each watcher objects of its own', async () => {
      const store = await lab.open()
      const watching = [take(store, await now(store), 1), take(store, await now(store), 1)]
      await store.create(StoragePool, pool('a'))
      const [one, two] = await Promise.all(watching)
      ;(one![0]!.object.spec as { path: string }).path = '/changed'
      expect(two![0]!.object.spec.path).toBe('/p')
      expect((await store.get(StoragePool, { name: 'a' })).spec.path).toBe('/p')
    })

    it('refuses what is no version', async () => {
      const store = await lab.open()
      await expect(take(store, 'x', 1)).rejects.toMatchObject({ reason: 'BadRequest' })
    })

    forgetful('refuses what is too old', async () => {
      const store = await lab.open({ limit: 10 })
      const first = await store.create(StoragePool, pool('a'))
      for (let i = 0; i < 600; i += 1) await set(store, 'a', `/${i}`)
      const { resourceVersion = '' } = first.metadata
      await expect(take(store, resourceVersion, 1)).rejects.toMatchObject({ reason: 'Gone' })
    })
  })
}
