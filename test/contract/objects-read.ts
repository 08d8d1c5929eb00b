import { describe, expect, it } from 'vitest'
import { StoragePool } from '../../src/resources/kinds.ts'
import { VirtualMachine } from '../../src/resources/vm.ts'
import type { ObjectList, ObjectStore } from '../../src/store/objects.ts'
import { type ObjectsLab, pool, vm } from './objects.ts'

const namesOf = ({ items }: ObjectList<{ metadata: { name: string; namespace?: string } }>) =>
  items.map(({ metadata }) => metadata.name)

/** All pages of a list. */
async function pagesOf(store: ObjectStore, limit: number, between: () => Promise<unknown> = async () => {}) {
  const pages: ObjectList<StoragePool>[] = []
  for (let token: string | undefined; ; ) {
    const page = await store.list(StoragePool, { limit, ...(token !== undefined && { continue: token }) })
    pages.push(page)
    token = page.continue
    if (token === undefined) return pages
    await between()
  }
}

/** What every ObjectStore promises to readers. */
export function objectsReadContract(name: string, lab: ObjectsLab): void {
  const forgetful = it.skipIf(lab.foreign === true)
  describe(`${name} as an ObjectStore: reads`, () => {
    it('lists a namespace, all of them, and a kind that has none, in order', async () => {
      const store = await lab.open()
      for (const [namespace, names] of [
        ['b', ['x', 'y']],
        ['a', ['y']],
        ['a-b', ['x']],
      ] as const)
        for (const one of names) await store.create(VirtualMachine, vm(one, {}, { namespace }))
      await store.create(StoragePool, pool('x'))
      expect(namesOf(await store.list(VirtualMachine, { namespace: 'b' }))).toEqual(['x', 'y'])
      expect(namesOf(await store.list(VirtualMachine, { namespace: 'a' }))).toEqual(['y'])
      expect(namesOf(await store.list(VirtualMachine))).toHaveLength(4)
      expect(namesOf(await store.list(StoragePool))).toEqual(['x'])
    })

    it('chooses by label, whatever the operator', async () => {
      const store = await lab.open()
      const sets = {
        a: { tier: 'front', n: '1' },
        b: { tier: 'back' },
        c: { tier: 'front', n: '12' },
        d: undefined,
      }
      for (const [one, labels] of Object.entries(sets))
        await store.create(StoragePool, pool(one, {}, labels && { labels }))
      for (const [labelSelector, wanted] of [
        ['tier=front', ['a', 'c']],
        ['tier==front,n', ['a', 'c']],
        ['tier!=front', ['b', 'd']],
        ['tier', ['a', 'b', 'c']],
        ['!tier', ['d']],
        ['tier in (front,back),!n', ['b']],
        ['tier notin (front)', ['b', 'd']],
        ['n>2', ['c']],
        ['n<2', ['a']],
        ['', ['a', 'b', 'c', 'd']],
      ] as const)
        expect(namesOf(await store.list(StoragePool, { labelSelector })), labelSelector).toEqual(wanted)
      await expect(store.list(StoragePool, { labelSelector: '=' })).rejects.toMatchObject({
        reason: 'BadRequest',
      })
    })

    it('lists one by its name, as it is and as it was', async () => {
      const store = await lab.open()
      const { metadata } = await store.create(StoragePool, pool('a'))
      const { resourceVersion = '' } = await store.list(StoragePool)
      await store.create(StoragePool, pool('ab'))
      await store.create(VirtualMachine, vm('a', {}, { namespace: 'b' }))
      await store.create(VirtualMachine, vm('a', {}, { namespace: 'a' }))
      const named = async (change: object) => namesOf(await store.list(StoragePool, { name: 'a', ...change }))
      expect(await named({})).toEqual(['a'])
      expect(await named({ labelSelector: 'x' })).toEqual([])
      const { items } = await store.list(VirtualMachine, { name: 'a', namespace: 'b' })
      expect(items.map((one) => one.metadata.namespace)).toEqual(['b'])
      await store.delete(StoragePool, { name: 'a' })
      expect(await named({})).toEqual([])
      const then = await store.list(StoragePool, { name: 'a', resourceVersion })
      expect(then).toMatchObject({ items: [{ metadata }], resourceVersion })
    })

    it('lists as it was at a version, whole and by page', async () => {
      const store = await lab.open()
      for (const one of ['a', 'b', 'c']) await store.create(StoragePool, pool(one))
      const before = await store.list(StoragePool)
      await store.delete(StoragePool, { name: 'b' })
      await store.create(StoragePool, pool('d'))
      const { resourceVersion } = before
      expect(await store.list(StoragePool, { resourceVersion })).toEqual(before)
      const first = await store.list(StoragePool, { resourceVersion, limit: 2 })
      expect([namesOf(first), first.resourceVersion]).toEqual([['a', 'b'], resourceVersion])
      const rest = await store.list(StoragePool, { limit: 2, continue: first.continue ?? '' })
      expect([namesOf(rest), rest.resourceVersion]).toEqual([['c'], resourceVersion])
    })

    it('lists at no version that has not come yet, is too old or is none', async () => {
      const store = await lab.open()
      await store.create(StoragePool, pool('a'))
      const { resourceVersion } = await store.list(StoragePool)
      const later = { resourceVersion: String(Number(resourceVersion) + 1_000) }
      for (const more of [{}, { limit: 1 }, { name: 'a' }])
        await expect(store.list(StoragePool, { ...later, ...more })).rejects.toMatchObject({ reason: 'Gone' })
      for (const none of ['x', ''])
        await expect(store.list(StoragePool, { resourceVersion: none })).rejects.toMatchObject({
          reason: 'BadRequest',
        })
    })

    it('says how many are to come after a page, where nothing selects', async () => {
      const store = await lab.open()
      for (const one of ['a', 'b', 'c']) await store.create(StoragePool, pool(one))
      expect(await store.list(StoragePool, { limit: 1 })).toMatchObject({ remainingItemCount: 2 })
      expect(await store.list(StoragePool, { limit: 3 })).not.toHaveProperty('remainingItemCount')
      const some = await store.list(StoragePool, { limit: 1, labelSelector: '!x' })
      expect(some).not.toHaveProperty('remainingItemCount')
    })

    it('pages: every object once, the last page without a token', async () => {
      const store = await lab.open()
      for (let i = 0; i < 10; i += 1) await store.create(StoragePool, pool(`p${i}`))
      for (const [limit, sizes] of [
        [3, [3, 3, 3, 1]],
        [5, [5, 5]],
        [10, [10]],
        [0, [10]],
        [100, [10]],
      ] as const) {
        const pages = await pagesOf(store, limit)
        expect(pages.map(({ items }) => items.length)).toEqual(sizes)
        expect(pages.flatMap(namesOf)).toEqual(Array.from({ length: 10 }, (_, i) => `p${i}`))
      }
    })

    it('pages through one moment, whatever is written meanwhile; a watch from there misses nothing', async () => {
      const store = await lab.open()
      for (let i = 0; i < 10; i += 1) await store.create(StoragePool, pool(`p${i}`))
      let n = 0
      const before = (await store.list(StoragePool)).items
      const pages = await pagesOf(store, 3, async () => {
        n += 1
        await store.create(StoragePool, pool(`p${n}-new`))
        await store.delete(StoragePool, { name: `p${n * 3}` })
        const one = await store.get(StoragePool, { name: `p${n * 3 + 1 > 9 ? 1 : n * 3 + 1}` })
        await store.update(StoragePool, { ...one, spec: { ...one.spec, path: `/${n}` } })
      })
      expect(pages.flatMap(({ items }) => items)).toEqual(before)
      const versions = new Set(pages.map(({ resourceVersion }) => resourceVersion))
      expect(versions.size).toBe(1)
      const stop = new AbortController()
      const seen: string[] = []
      const options = { resourceVersion: [...versions][0] ?? '', signal: stop.signal }
      for await (const { type, object } of store.watch(StoragePool, options)) {
        if (seen.push(`${type} ${object.metadata.name}`) === n * 3) stop.abort()
      }
      expect(seen.slice(0, 3)).toEqual(['ADDED p1-new', 'DELETED p3', 'MODIFIED p4'])
    })

    forgetful('says that a list is too old to go on', async () => {
      const store = await lab.open({ limit: 10 })
      for (let i = 0; i < 10; i += 1) await store.create(StoragePool, pool(`p${i}`))
      const page = await store.list(StoragePool, { limit: 3 })
      for (let i = 0; i < 600; i += 1) {
        const one = await store.get(StoragePool, { name: 'p0' })
        await store.update(StoragePool, { ...one, spec: { ...one.spec, path: `/${i}` } })
      }
      const next = store.list(StoragePool, { limit: 3, continue: page.continue ?? '' })
      await expect(next).rejects.toMatchObject({ status: 410, message: expect.stringContaining('too old') })
      const { resourceVersion } = page
      await expect(store.list(StoragePool, { resourceVersion })).rejects.toMatchObject({ reason: 'Gone' })
    })

    it('takes no token of another list, or of nobody', async () => {
      const store = await lab.open()
      for (const namespace of ['a', 'b', 'c'])
        for (const one of ['x', 'y']) await store.create(VirtualMachine, vm(one, {}, { namespace }))
      const token = async (namespace?: string) => {
        const page = await store.list(VirtualMachine, { limit: 1, ...(namespace && { namespace }) })
        return page.continue ?? ''
      }
      const others = lab.foreign ? [] : [await token('a'), await token()]
      for (const given of [...others, 'x', '', '!', Buffer.from('/etc').toString('base64')]) {
        const list = store.list(VirtualMachine, { namespace: 'b', continue: given })
        await expect(list, given).rejects.toMatchObject({ reason: 'BadRequest' })
      }
    })
  })
}
