import { describe, expect, it } from 'vitest'
import type { Kv, KvEvent } from '../../src/store/kv.ts'

/** What every Kv promises. `open` gives an empty one that keeps about `historyLimit` events. */
export function kvContract(name: string, open: (historyLimit?: number) => Promise<Kv>): void {
  describe(`${name} as a Kv`, () => {
    it('writes only at the expected revision, and reads its own writes', async () => {
      const kv = await open()
      const first = await kv.put('/a/1', 'x', 0n)
      expect(first).toBeDefined()
      expect(await kv.put('/a/1', 'y', 0n)).toBeUndefined()
      expect(await kv.delete('/a/1', (first ?? 0n) + 1n)).toBeUndefined()
      const second = await kv.put('/a/1', 'z', first ?? 0n)
      expect(await kv.get('/a/1')).toEqual({ key: '/a/1', value: 'z', revision: second })
      expect(await kv.delete('/a/1', second ?? 0n)).toBeGreaterThan(second ?? 0n)
      expect(await kv.get('/a/1')).toBeUndefined()
      await kv.close()
    })

    it('lists a prefix in order, page by page', async () => {
      const kv = await open()
      for (const key of ['/a/2', '/b/1', '/a/1', '/a/3']) await kv.put(key, key, 0n)
      const page = await kv.list('/a/', { limit: 2 })
      expect(page.entries.map((entry) => entry.key)).toEqual(['/a/1', '/a/2'])
      const rest = await kv.list('/a/', { limit: 2, after: page.more ?? '' })
      expect(rest.entries.map((entry) => entry.key)).toEqual(['/a/3'])
      expect(rest.more).toBeUndefined()
      await kv.close()
    })

    it('shows a watcher every event once, in order, under concurrent writers', async () => {
      const kv = await open()
      const { revision: from } = await kv.list('/a/')
      const stop = new AbortController()
      const seen: KvEvent[] = []
      const watching = (async () => {
        for await (const event of kv.watch('/a/', from, stop.signal)) {
          if (seen.push(event) === 200) stop.abort()
        }
      })()
      const keys = Array.from({ length: 200 }, (_, i) => `/a/${i}`)
      const written = await Promise.all(keys.map((key) => kv.put(key, key, 0n)))
      await watching
      expect(seen.map((event) => event.revision)).toEqual(written.toSorted((a, b) => Number(a! - b!)))
      expect(new Set(seen.map((event) => event.key))).toEqual(new Set(keys))
      await kv.close()
    })

    it('refuses to watch from before its history', async () => {
      const kv = await open(10)
      const first = await kv.put('/a/0', '', 0n)
      await Promise.all(Array.from({ length: 600 }, (_, i) => kv.put(`/a/x${i}`, '', 0n)))
      const watch = kv.watch('/a/', first ?? 0n, new AbortController().signal)[Symbol.asyncIterator]()
      await expect(watch.next()).rejects.toMatchObject({ reason: 'Gone' })
      await kv.close()
    })
  })
}
