import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expect, it } from 'vitest'
import type { Kv, KvEvent, WatchProgress } from '../../src/store/kv.ts'
import { collected, held } from '../fakes/collected.ts'
import { type KvLab, put, remove, take } from './kv.ts'

const told = ({ type, key, previous, ...rest }: KvEvent) =>
  `${type} ${key} ${'value' in rest ? rest.value : '-'} was ${previous?.value ?? '-'}`

/** The next value of a watch. */
function next(watch: AsyncIterable<KvEvent>): Promise<IteratorResult<KvEvent>> {
  return watch[Symbol.asyncIterator]().next()
}

async function oldestWatchable(kv: Kv, newest: bigint): Promise<bigint> {
  for (let from = 0n; from < newest; from += 1n) {
    try {
      await take(kv, '/', from, 1)
      return from
    } catch (error) {
      expect(error).toMatchObject({ reason: 'Gone' })
    }
  }
  return newest
}

/** What every Kv promises to watchers. */
export function kvWatchContract(name: string, lab: KvLab): void {
  describe(`${name} as a watched Kv`, () => {
    if (lab.tells)
      it('tells a reader who waits how far it is, and nothing while events are on their way', async () => {
        const kv = await lab.open()
        const stop = new AbortController()
        const progress: WatchProgress = {}
        const watch = kv.watch('/a/', 0n, stop.signal, progress)[Symbol.asyncIterator]()
        await put(kv, '/a/1')
        await put(kv, '/b/1')
        await watch.next()
        expect(progress.upTo?.()).toBeUndefined()
        const next = watch.next()
        await expect.poll(() => progress.upTo?.()).toBe(2n)
        await put(kv, '/b/2')
        expect(progress.upTo?.()).toBe(3n)
        await Promise.all([put(kv, '/a/2'), put(kv, '/a/3')])
        await next
        expect(progress.upTo?.()).toBeUndefined()
        stop.abort()
        await watch.return?.()
        await kv.close()
      })

    it('shows every event once, in order, to every watcher, while many write', async () => {
      const kv = await lab.open()
      const { revision: from } = await kv.list('/a/')
      const watching = [0, 1, 2].map(() => take(kv, '/a/', from, 300))
      const keys = Array.from({ length: 300 }, (_, i) => `/a/${i}`)
      const written = await Promise.all(keys.map((key) => kv.put(key, key, 0n)))
      await Promise.all(keys.map((_, i) => kv.put(`/b/${i}`, '', 0n)))
      for (const seen of await Promise.all(watching)) {
        expect(seen.map((event) => event.revision)).toEqual(written.toSorted((a, b) => Number(a! - b!)))
        expect(new Set(seen.map((event) => event.key))).toEqual(new Set(keys))
      }
      await kv.close()
    })

    it('shows the life of a key whole: made, changed, deleted, made again', async () => {
      const kv = await lab.open()
      const watching = take(kv, '/a/', 0n, 4)
      await put(kv, '/a/1', 'x')
      await put(kv, '/a/1', 'y')
      await remove(kv, '/a/1')
      await put(kv, '/a/1', 'z')
      const life = ['put /a/1 x was -', 'put /a/1 y was x', 'delete /a/1 - was y', 'put /a/1 z was -']
      expect((await watching).map(told)).toEqual(life)
      expect((await take(kv, '/a/', 0n, 4)).map(told)).toEqual(life)
      const [, second, third] = await take(kv, '/a/', 0n, 4)
      expect(second?.previous?.revision).toBe(1n)
      expect(third?.previous?.revision).toBe(2n)
      await kv.close()
    })

    it('goes on exactly after any revision, from history into what is live', async () => {
      const kv = await lab.open()
      for (let i = 1; i <= 20; i += 1) await put(kv, `/a/${i}`)
      const starts = [0n, 1n, 7n, 19n, 20n]
      const watching = starts.map((from) => take(kv, '/a/', from, Number(40n - from)))
      await Promise.all(Array.from({ length: 20 }, (_, i) => put(kv, `/a/x${i}`)))
      for (const [i, from] of starts.entries()) {
        expect((await watching[i])?.map(({ revision }) => revision)).toEqual(
          Array.from({ length: Number(40n - from) }, (_, n) => from + 1n + BigInt(n)),
        )
      }
      await kv.close()
    })

    it('is about its prefix only', async () => {
      const kv = await lab.open()
      const watching = take(kv, '/a/', 0n, 2)
      for (const key of ['/a', '/a/1', '/a.b/1', '/b/1', '/a/2']) await put(kv, key)
      expect((await watching).map(({ key }) => key)).toEqual(['/a/1', '/a/2'])
      await kv.close()
    })

    it('ends quietly when it is told to, before, between and while it waits', async () => {
      const kv = await lab.open()
      await put(kv, '/a/1')
      const stop = new AbortController()
      const watch = kv.watch('/a/', 0n, stop.signal)[Symbol.asyncIterator]()
      expect((await watch.next()).value?.key).toBe('/a/1')
      const waiting = watch.next()
      stop.abort()
      expect((await waiting).done).toBe(true)
      expect((await next(kv.watch('/a/', 0n, AbortSignal.abort()))).done).toBe(true)
      await kv.close()
    })

    it('refuses to watch from beyond its history or its present, at the very boundary', async () => {
      const kv = await lab.open({ limit: 10 })
      for (let i = 0; i < 300; i += 1) await put(kv, `/a/${i}`)
      const oldest = await oldestWatchable(kv, 300n)
      expect(oldest).toBeGreaterThan(0n)
      // At least what was asked for is kept.
      expect(oldest).toBeLessThanOrEqual(290n)
      const all = await take(kv, '/', oldest, Number(300n - oldest))
      expect(all.map(({ revision }) => revision)).toEqual(
        Array.from({ length: Number(300n - oldest) }, (_, i) => oldest + 1n + BigInt(i)),
      )
      const { signal } = new AbortController()
      await expect(next(kv.watch('/', oldest - 1n, signal))).rejects.toMatchObject({ reason: 'Gone' })
      await expect(next(kv.watch('/', 301n, signal))).rejects.toMatchObject({ reason: 'Gone' })
      await expect(kv.list('/', { at: oldest - 1n })).rejects.toMatchObject({ reason: 'Gone' })
      expect((await kv.list('/', { at: oldest })).entries).toHaveLength(Number(oldest))
      await kv.close()
    })

    it('keeps no more of its history than fits', async () => {
      const kv = await lab.open({ bytes: 1_000_000 })
      const value = 'x'.repeat(100_000)
      for (let i = 0; i < 60; i += 1) await put(kv, `/a/${i % 3}`, value)
      const oldest = await oldestWatchable(kv, 60n)
      // Each event holds two values; the last five fit.
      expect(oldest).toBeGreaterThanOrEqual(55n)
      const rest = await take(kv, '/a/', oldest, Number(60n - oldest))
      expect(rest.map(({ revision }) => revision)).toEqual(
        Array.from({ length: Number(60n - oldest) }, (_, i) => oldest + 1n + BigInt(i)),
      )
      await kv.close()
    })

    it('lets a slow reader go on while history has what it missed, and cuts it after', async () => {
      for (const [limit, cut] of [
        [100_000, false],
        [100, true],
      ] as const) {
        const kv = await lab.open({ limit })
        await put(kv, '/a/0')
        const stop = new AbortController()
        const watch = kv.watch('/a/', 0n, stop.signal)[Symbol.asyncIterator]()
        expect((await watch.next()).value?.revision).toBe(1n)
        const second = watch.next()
        // More than a reader's buffer holds.
        await Promise.all(Array.from({ length: 3_000 }, (_, i) => kv.put(`/a/x${i}`, '', 0n)))
        let seen = (await second).value?.revision ?? 0n
        const readOn = async () => {
          while (seen < 3_001n) {
            const { value } = await watch.next()
            expect(value?.revision).toBe(seen + 1n)
            seen += 1n
          }
        }
        if (cut) await expect(readOn()).rejects.toMatchObject({ reason: 'Gone' })
        else await readOn()
        stop.abort()
        await kv.close()
      }
    })

    it('does not cut a reader of one prefix for a flood of others', async () => {
      const kv = await lab.open({ limit: 100 })
      const watching = take(kv, '/a/', 0n, 2)
      await put(kv, '/a/1')
      for (let i = 0; i < 10; i += 1)
        await Promise.all(Array.from({ length: 200 }, (_, j) => kv.put(`/b/${i}/${j}`, '', 0n)))
      await put(kv, '/a/2')
      expect((await watching).map(({ revision }) => revision)).toEqual([1n, 2_002n])
      await kv.close()
    })

    it('holds nothing of watches that have ended, while another goes on', async () => {
      const kv = await lab.open()
      const stop = new AbortController()
      const other = kv.watch('/a/', 0n, stop.signal)[Symbol.asyncIterator]()
      await put(kv, '/a/1')
      await other.next()
      const waiting = other.next()
      // What a watch runs in: whatever waits for its sake holds on to it.
      const storage = new AsyncLocalStorage<object>()
      const contexts: WeakRef<object>[] = []
      for (let i = 0; i < 20; i += 1) {
        const context = {}
        contexts.push(new WeakRef(context))
        await storage.run(context, () => take(kv, '/a/', 0n, 1))
      }
      await collected()
      // What the last one left is overwritten by the next.
      expect(held(contexts)).toBeLessThanOrEqual(2)
      stop.abort()
      await waiting
      await kv.close()
    })

    const { reopen } = lab
    if (!reopen) return
    it('goes on after a reopening, exactly after what was last seen', async () => {
      let kv = await lab.open({ limit: 50 })
      for (let i = 1; i <= 10; i += 1) await put(kv, `/a/${i}`)
      const seen = await take(kv, '/a/', 0n, 6)
      kv = await reopen(kv)
      await remove(kv, '/a/1')
      const rest = await take(kv, '/a/', seen.at(-1)!.revision, 5)
      expect(rest.map(told)).toEqual([
        ...[7, 8, 9, 10].map((i) => `put /a/${i} /a/${i} was -`),
        'delete /a/1 - was /a/1',
      ])
      await kv.close()
    })
  })
}
