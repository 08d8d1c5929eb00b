import { describe, expect, it } from 'vitest'
import type { Kv, KvEvent } from '../../src/store/kv.ts'
import { kvWatchContract } from './kv-watch.ts'

export interface KvLab {
  /** An empty store that keeps about so many events, and bytes of them. */
  readonly open: (history?: { limit?: number; bytes?: number }) => Promise<Kv>
  /** Closes a store and opens what it left; absent where nothing is left. */
  readonly reopen?: (kv: Kv) => Promise<Kv>
  /** Whether a watch tells at once how far it is, also where nothing of it happens. */
  readonly tells?: boolean
}

/** Writes that must succeed. @returns the revision */
export async function put(kv: Kv, key: string, value = key): Promise<bigint> {
  const before = await kv.get(key)
  const revision = await kv.put(key, value, before?.revision ?? 0n)
  if (revision === undefined) throw new Error(`${key} was not written`)
  return revision
}

export async function remove(kv: Kv, key: string): Promise<bigint> {
  const before = await kv.get(key)
  const revision = await kv.delete(key, before?.revision ?? 0n)
  if (revision === undefined) throw new Error(`${key} was not deleted`)
  return revision
}

/** What a watch shows until `count` events have come. */
export async function take(kv: Kv, prefix: string, from: bigint, count: number): Promise<KvEvent[]> {
  const stop = new AbortController()
  const seen: KvEvent[] = []
  if (count === 0) return seen
  for await (const event of kv.watch(prefix, from, stop.signal)) {
    if (seen.push(event) === count) stop.abort()
  }
  return seen
}

const keysOf = ({ entries }: { entries: readonly { key: string }[] }) => entries.map(({ key }) => key)

/** What every Kv promises. */
export function kvContract(name: string, lab: KvLab): void {
  describe(`${name} as a Kv`, () => {
    it('writes only at the expected revision, and reads its own writes', async () => {
      const kv = await lab.open()
      const first = await put(kv, '/a/1', 'x')
      expect(await kv.put('/a/1', 'y', 0n)).toBeUndefined()
      expect(await kv.put('/a/1', 'y', first + 1n)).toBeUndefined()
      expect(await kv.put('/a/2', 'y', first)).toBeUndefined()
      expect(await kv.delete('/a/1', first + 1n)).toBeUndefined()
      expect(await kv.delete('/a/1', 0n)).toBeUndefined()
      expect(await kv.delete('/a/2', 0n)).toBeUndefined()
      const second = await kv.put('/a/1', 'z', first)
      expect(await kv.get('/a/1')).toEqual({ key: '/a/1', value: 'z', revision: second })
      expect(await kv.delete('/a/1', second ?? 0n)).toBeGreaterThan(second ?? 0n)
      expect(await kv.get('/a/1')).toBeUndefined()
      expect((await kv.list('/')).entries).toEqual([])
      await kv.close()
    })

    it('makes a write only while another key is as it was', async () => {
      const kv = await lab.open()
      const other = await put(kv, '/other', '1')
      const first = await kv.put('/a', 'x', 0n, { key: '/other', revision: other })
      expect(first).toBeGreaterThan(other)
      expect(await kv.put('/b', 'x', 0n, { key: '/none', revision: 0n })).toBeGreaterThan(first ?? 0n)
      await kv.put('/other', '2', other)
      const { revision } = await kv.list('/')
      expect(await kv.put('/a', 'y', first ?? 0n, { key: '/other', revision: other })).toBeUndefined()
      expect(await kv.delete('/a', first ?? 0n, { key: '/other', revision: other })).toBeUndefined()
      expect(await kv.put('/c', 'y', 0n, { key: '/other', revision: 0n })).toBeUndefined()
      expect((await kv.list('/')).revision).toBe(revision)
      expect((await kv.get('/a'))?.value).toBe('x')
      const now = (await kv.get('/other'))?.revision ?? 0n
      expect(await kv.delete('/a', first ?? 0n, { key: '/other', revision: now })).toBeGreaterThan(revision)
      await kv.close()
    })

    it('lets exactly one of many writers of a revision win, and counts the losers nowhere', async () => {
      const kv = await lab.open()
      const created = await Promise.all(Array.from({ length: 20 }, (_, i) => kv.put('/a', `${i}`, 0n)))
      const [winner = 0n] = created.filter((revision) => revision !== undefined)
      expect(created.filter((revision) => revision !== undefined)).toHaveLength(1)
      expect((await kv.list('/')).revision).toBe(winner)
      const mixed = await Promise.all([
        ...Array.from({ length: 10 }, (_, i) => kv.put('/a', `b${i}`, winner)),
        ...Array.from({ length: 10 }, () => kv.delete('/a', winner)),
      ])
      expect(mixed.filter((revision) => revision !== undefined)).toEqual([winner + 1n])
      await kv.close()
    })

    it('loses no increment of a counter that many writers share', async () => {
      const kv = await lab.open()
      await put(kv, '/n', '0')
      const writer = async () => {
        for (let done = 0; done < 10; ) {
          const { value = '0', revision = 0n } = (await kv.get('/n')) ?? {}
          if ((await kv.put('/n', String(Number(value) + 1), revision)) !== undefined) done += 1
        }
      }
      await Promise.all(Array.from({ length: 8 }, writer))
      expect((await kv.get('/n'))?.value).toBe('80')
      expect((await kv.list('/')).revision).toBe(81n)
      await kv.close()
    })

    it('lists a prefix in order, page by page', async () => {
      const kv = await lab.open()
      for (const key of ['/a/2', '/b/1', '/a/1', '/a/3', '/a.b/1', '/a']) await put(kv, key)
      expect(keysOf(await kv.list('/a/'))).toEqual(['/a/1', '/a/2', '/a/3'])
      const page = await kv.list('/a/', { limit: 2 })
      expect([keysOf(page), page.more, page.left]).toEqual([['/a/1', '/a/2'], '/a/2', 1])
      const rest = await kv.list('/a/', { limit: 2, after: page.more ?? '' })
      expect([keysOf(rest), rest.more]).toEqual([['/a/3'], undefined])
      const exact = await kv.list('/a/', { limit: 3 })
      expect([keysOf(exact).length, exact.more]).toEqual([3, undefined])
      await kv.close()
    })

    it('never lists beyond its prefix, wherever it is to go on', async () => {
      const kv = await lab.open()
      for (const key of ['/a/1', '/b/1', '/b/2', '/c/1']) await put(kv, key)
      expect(keysOf(await kv.list('/b/', { after: '/a/1' }))).toEqual(['/b/1', '/b/2'])
      expect(keysOf(await kv.list('/b/', { after: '' }))).toEqual(['/b/1', '/b/2'])
      expect(keysOf(await kv.list('/b/', { after: '/c/1' }))).toEqual([])
      await kv.close()
    })

    it('knows no entry of a key that is too long to be one', async () => {
      const kv = await lab.open()
      const long = `/a/${'x'.repeat(10_000)}`
      await put(kv, '/a/1')
      expect(await kv.get(long)).toBeUndefined()
      expect(keysOf(await kv.list(long))).toEqual([])
      expect(keysOf(await kv.list('/a/', { after: long }))).toEqual([])
      expect(keysOf(await kv.list('/a/', { after: `/a/${'0'.repeat(10_000)}` }))).toEqual(['/a/1'])
      await kv.close()
    })

    it('keeps values of any text and size', async () => {
      const kv = await lab.open()
      const values = ['', '\0', '"\\', '\u2028é🙂', 'x'.repeat(1_500_000)]
      for (const [i, value] of values.entries()) await put(kv, `/a/${i}`, value)
      expect((await kv.list('/a/')).entries.map(({ value }) => value)).toEqual(values)
      await kv.close()
    })

    it('leaves out only values that its reader has at that very revision, while many write', async () => {
      const kv = await lab.open()
      const text = (key: string, revision: bigint) => `what was read of ${key} at ${revision}`
      const whole = await Promise.all(Array.from({ length: 20 }, (_, i) => put(kv, `/a/${i}`)))
      expect(whole).toHaveLength(20)
      let writing = true
      const writers = Promise.all(
        Array.from({ length: 4 }, async (_, writer) => {
          for (let i = 0; writing; i += 1) {
            const key = `/a/${writer + 4 * (i % 6)}`
            if (i % 5 === 4 && (await kv.get(key))) await remove(kv, key)
            else await put(kv, key, `${key} ${i}`)
          }
        }),
      )
      for (let i = 0; i < 100; i += 1) {
        const page = await kv.list('/a/', { reuse: text })
        const { entries } = await kv.list('/a/', { at: page.revision })
        const expected = entries.map(({ key, value, revision }, n) =>
          page.entries[n]?.reused === undefined
            ? { key, value, revision }
            : { key, value: '', revision, reused: text(key, revision) },
        )
        expect(page.entries).toEqual(expected)
      }
      writing = false
      await writers
      // Nothing of one that has nothing.
      const { entries } = await kv.list('/a/', { reuse: () => undefined })
      expect(entries).toEqual((await kv.list('/a/')).entries)
      await kv.close()
    })

    it('pages through the store as it was when the first page was made', async () => {
      const kv = await lab.open()
      for (let i = 0; i < 10; i += 1) await put(kv, `/a/${i}`, 'old')
      const first = await kv.list('/a/', { limit: 3 })
      await remove(kv, '/a/4')
      await put(kv, '/a/5', 'new')
      await put(kv, '/a/55')
      await remove(kv, '/a/55')
      await put(kv, '/a/6x')
      await remove(kv, '/a/7')
      await put(kv, '/a/7', 'again')
      await put(kv, '/a/1', 'new')
      const entries = [...first.entries]
      for (let { more } = first; more !== undefined; ) {
        const page = await kv.list('/a/', { limit: 3, after: more, at: first.revision })
        expect(page.revision).toBe(first.revision)
        entries.push(...page.entries)
        more = page.more
      }
      expect(entries.map(({ key, value, revision }) => `${key} ${value} ${revision}`)).toEqual(
        Array.from({ length: 10 }, (_, i) => `/a/${i} old ${i + 1}`),
      )
      await kv.close()
    })

    it('shows the store at any revision that history reaches', async () => {
      const kv = await lab.open()
      const model = new Map<string, string>()
      const states: string[][] = [[]]
      for (let i = 0; i < 60; i += 1) {
        const key = `/a/${(i * 7) % 11}`
        if (model.has(key) && i % 3 === 0) {
          await remove(kv, key)
          model.delete(key)
        } else {
          await put(kv, key, `${i}`)
          model.set(key, `${i}`)
        }
        states.push([...model].map(([name, value]) => `${name}=${value}`).sort())
      }
      for (const [revision, state] of states.entries()) {
        const { entries } = await kv.list('/a/', { at: BigInt(revision) })
        expect(entries.map(({ key, value }) => `${key}=${value}`).sort()).toEqual(state)
      }
      await expect(kv.list('/a/', { at: 61n })).rejects.toMatchObject({ reason: 'Gone' })
      await kv.close()
    })

    const { reopen } = lab
    if (!reopen) return
    it('is after a reopening what it was before', async () => {
      let kv = await lab.open()
      for (let i = 0; i < 5; i += 1) await put(kv, `/a/${i}`)
      await remove(kv, '/a/0')
      const before = await kv.list('/')
      kv = await reopen(kv)
      expect(await kv.list('/')).toEqual(before)
      expect(await put(kv, '/a/9')).toBe(before.revision + 1n)
      await kv.close()
    })
  })
  kvWatchContract(name, lab)
}
