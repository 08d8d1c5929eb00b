import { getEventListeners } from 'node:events'
import { expect, test } from 'vitest'
import { Feed } from '../../src/store/feed.ts'
import type { KvEvent, WatchProgress } from '../../src/store/kv.ts'

const put = (revision: bigint, key = '/a/1', value = ''): KvEvent => ({ type: 'put', key, value, revision })
const none = () => []

/** Events after a version, as a history of at most so many at once. */
const historyOf = (events: readonly KvEvent[], most: number) => (after: bigint) =>
  events.filter(({ revision }) => revision > after).slice(0, most)

test('a reader that is ahead of what is published is told nothing twice, and says no less than it has seen', async () => {
  const feed = new Feed()
  const progress: WatchProgress = {}
  const watch = feed.watch('/a/', 10n, new AbortController().signal, none, progress)
  const next = watch.next()
  expect(progress.upTo?.()).toBe(10n)
  // A watch that many share may be behind one of them, who has listed since.
  feed.publish([put(5n), put(6n, '/b/1')])
  feed.publish([], 7n)
  expect(progress.upTo?.()).toBe(10n)
  feed.publish([put(10n), put(11n)])
  expect((await next).value?.revision).toBe(11n)
  await watch.return?.(undefined)
})

test('what comes between two pages of the history, and within its last one, is told once and in order', async () => {
  const feed = new Feed()
  const log = Array.from({ length: 10 }, (_, i) => put(BigInt(i + 1)))
  let asked = 0
  const history = (after: bigint) => {
    const page = historyOf(log, 3)(after)
    asked += 1
    // As a commit that was read from the history before it was published.
    if (asked <= 3) log.push(put(BigInt(log.length + 1)))
    return page
  }
  const stop = new AbortController()
  const seen: bigint[] = []
  for await (const { revision } of feed.watch('/a/', 0n, stop.signal, history)) {
    seen.push(revision)
    if (revision === 13n) queueMicrotask(() => feed.publish([put(12n), put(13n), put(14n)]))
    if (revision === 14n) stop.abort()
  }
  expect(seen).toEqual(Array.from({ length: 14 }, (_, i) => BigInt(i + 1)))
})

test('a reader that falls behind goes on from the history, and ends with what that throws', async () => {
  const feed = new Feed()
  const log: KvEvent[] = []
  const publish = (count: number) => {
    const events = Array.from({ length: count }, (_, i) => put(BigInt(log.length + i + 1)))
    log.push(...events)
    feed.publish(events)
  }
  let lost: Error | undefined
  const history = (after: bigint) => {
    if (lost) throw lost
    return historyOf(log, 256)(after)
  }
  const { signal } = new AbortController()
  const watch = feed.watch('/a/', 0n, signal, history)
  const first = watch.next()
  publish(1)
  await first
  publish(5_000)
  for (let wanted = 2n; wanted <= 5_001n; wanted += 1n) {
    const { value } = await watch.next()
    if (value?.revision !== wanted) throw new Error(`${value?.revision} in place of ${wanted}`)
  }
  const again = watch.next()
  publish(5_000)
  await again
  lost = new Error('too old')
  await expect(
    (async () => {
      for await (const _ of watch);
    })(),
  ).rejects.toBe(lost)
  expect((await watch.next()).done).toBe(true)
  expect(getEventListeners(signal, 'abort')).toEqual([])
})

test('several who wait for one watch are answered in turn, and all of them at its end', async () => {
  const feed = new Feed()
  const stop = new AbortController()
  const watch = feed.watch('/a/', 0n, stop.signal, none)
  const waiting = [watch.next(), watch.next(), watch.next(), watch.next()]
  feed.publish([put(1n), put(2n)])
  expect((await Promise.all(waiting.slice(0, 2))).map(({ value }) => value?.revision)).toEqual([1n, 2n])
  stop.abort()
  expect((await Promise.all(waiting.slice(2))).map(({ done }) => done)).toEqual([true, true])
})

test.each(['return', 'abort', 'break'] as const)(
  'a watch that ends by %s holds on to nothing',
  async (how) => {
    const feed = new Feed()
    const stop = new AbortController()
    const progress: WatchProgress = {}
    const watch = feed.watch('/a/', 0n, stop.signal, none, progress)
    const next = watch.next()
    if (how === 'break') {
      feed.publish([put(1n)])
      await next
      feed.publish([put(2n)])
      for await (const _ of watch) break
    } else if (how === 'abort') stop.abort()
    else await watch.return?.(undefined)
    if (how !== 'break') expect((await next).done).toBe(true)
    feed.publish([put(3n)])
    expect((await watch.next()).done).toBe(true)
    expect(progress.upTo?.()).toBeUndefined()
    expect(getEventListeners(stop.signal, 'abort')).toEqual([])
  },
)
