import { beforeEach, describe, expect, test } from 'vitest'
import { SimProcess, Timeline } from '../../src/sim/clock.ts'
import { Net, storeNode } from '../../src/sim/net.ts'
import { Random } from '../../src/sim/random.ts'
import { SimStore } from '../../src/sim/store.ts'
import { isReason } from '../../src/store/errors.ts'
import type { Kv } from '../../src/store/kv.ts'

let timeline: Timeline
let net: Net
let store: SimStore
let process: SimProcess
let kv: Kv

beforeEach(() => {
  timeline = new Timeline()
  net = new Net(timeline, new Random(3))
  store = new SimStore(timeline, net)
  process = new SimProcess('one', timeline, { rate: 1, epoch: 0, bootedAt: 0 })
  kv = store.client('host-a', process)
})

async function run(until: number): Promise<void> {
  while (await timeline.step(until));
}

/** What became of a promise, and when. */
function outcome<T>(promise: Promise<T>) {
  const seen: { value?: T; error?: unknown; at?: number } = {}
  promise.then(
    (value) => Object.assign(seen, { value, at: timeline.now }),
    (error: unknown) => Object.assign(seen, { error, at: timeline.now }),
  )
  return seen
}

describe('a store over a network', () => {
  test('answers after a while', async () => {
    const put = outcome(kv.put('a', '1', 0n))
    await run(0.3)
    expect(put.at).toBeUndefined()
    await run(10)
    expect(put.value).toBe(1n)
    expect(put.at).toBeLessThan(5)
  })

  test('a request that is lost is not executed, and says so after five seconds', async () => {
    net.cut('host-a', storeNode, 'drop')
    const put = outcome(kv.put('a', '1', 0n))
    await run(10_000)
    expect(isReason(put.error, 'ServiceUnavailable')).toBe(true)
    expect(put.at).toBe(5_000)
    expect(await store.kv.get('a')).toBeUndefined()
  })

  test('where the answer is lost the write is made, and its author told that it is not known', async () => {
    net.cut(storeNode, 'host-a', 'drop')
    const put = outcome(kv.put('a', '1', 0n))
    await run(10_000)
    expect(isReason(put.error, 'ServiceUnavailable')).toBe(true)
    expect((await store.kv.get('a'))?.value).toBe('1')
  })

  test('a request may be executed long after its author gave up', async () => {
    net.slow('host-a', storeNode, 600_000)
    const put = outcome(kv.put('a', '1', 0n))
    await run(5_000)
    expect(isReason(put.error, 'ServiceUnavailable')).toBe(true)
    expect(await store.kv.get('a')).toBeUndefined()
    await run(700_000)
    expect((await store.kv.get('a'))?.value).toBe('1')
  })

  test('refuses at once where the link does, and without a quorum', async () => {
    net.cut('host-a', storeNode, 'refuse')
    const refused = outcome(kv.get('a'))
    await run(100)
    expect(isReason(refused.error, 'ServiceUnavailable')).toBe(true)
    net.healAll()
    store.setAvailable('refuses')
    const leaderless = outcome(kv.put('a', '1', 0n))
    await run(200)
    expect(String(leaderless.error)).toContain('no leader')
    expect(await store.kv.get('a')).toBeUndefined()
  })

  test('a process that is killed before it sends sends nothing; one that is stopped sends it when it goes on', async () => {
    store.intercept = (call, phase) => phase === 'send' && call.process.stop('signal')
    const put = outcome(kv.put('a', '1', 0n))
    await run(1_000)
    expect(await store.kv.get('a')).toBeUndefined()
    process.cont('signal')
    await run(2_000)
    expect(put.value).toBe(1n)
    store.intercept = (call, phase) => phase === 'send' && call.process.kill()
    void kv.put('b', '1', 0n)
    await run(10_000)
    expect(await store.kv.get('b')).toBeUndefined()
  })
})

describe('a watch over a network', () => {
  function watch(from: bigint) {
    const seen: string[] = []
    const end = outcome(
      (async () => {
        for await (const event of kv.watch('', from, new AbortController().signal))
          seen.push(`${event.key}@${event.revision}`)
      })(),
    )
    return { seen, end }
  }

  const write = (key: string) => store.put(undefined, key, 'x', 0n)

  test('gives what was written before and after, in order', async () => {
    await write('a')
    const { seen } = watch(0n)
    await run(10)
    for (const key of ['b', 'c', 'd']) await write(key)
    await run(20)
    expect(seen).toEqual(['a@1', 'b@2', 'c@3', 'd@4'])
  })

  test('tells what was written meanwhile when a broken link is mended soon', async () => {
    const { seen, end } = watch(0n)
    await run(10)
    net.cut(storeNode, 'host-a', 'drop')
    await write('a')
    await write('b')
    await run(2_000)
    expect(seen).toEqual([])
    net.healAll()
    await write('c')
    await run(2_100)
    expect(seen).toEqual(['a@1', 'b@2', 'c@3'])
    expect(end.at).toBeUndefined()
  })

  test('ends where the link stays broken', async () => {
    const { seen, end } = watch(0n)
    await run(10)
    net.cut(storeNode, 'host-a', 'drop')
    await write('a')
    await run(20_000)
    expect(seen).toEqual([])
    expect(isReason(end.error, 'ServiceUnavailable')).toBe(true)
  })
})
