import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/lib/clock.ts'
import type { EtcdOptions } from '../../src/store/etcd.ts'
import { EtcdClient } from '../../src/store/etcd-client.ts'
import type { Kv, KvEvent } from '../../src/store/kv.ts'
import { put, remove, take } from '../contract/kv.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { openAt } from '../fakes/etcd-stores.ts'
import { TcpProxy } from '../fakes/tcp-proxy.ts'

/** Short, so that these tests are; what is tested is that each is kept, and that nothing depends on how long. */
const times = { callMs: 3_000, attemptMs: 700, askMs: 400, answerMs: 400 }
/** Far more than any deadline of these stores. */
const bounded = 20_000

let lab: EtcdLab
const opened: (Kv | TcpProxy)[] = []
beforeAll(async () => {
  lab = await EtcdLab.start()
})
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close()
})
afterAll(() => lab?.close())

const member = () => lab.members[0]!
const portOf = () => Number(new URL(member().endpoint).port)

async function open(options: Partial<EtcdOptions> = {}) {
  const kv = await openAt(lab, { times, ...options })
  opened.push(kv)
  return kv
}

async function proxied() {
  const proxy = await TcpProxy.to(portOf())
  opened.push(proxy)
  return { proxy, endpoint: `http://127.0.0.1:${proxy.port}` }
}

/** What a promise comes to, and that it comes to it. */
async function outcome(promise: Promise<unknown>): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('it hangs')), bounded)
  })
  try {
    return await Promise.race([promise.catch((error: unknown) => error), late])
  } finally {
    clearTimeout(timer)
  }
}

/** Writes many keys at once, past the store. */
async function fill(prefix: string, names: readonly string[]): Promise<void> {
  const client = new EtcdClient(member().endpoint, {}, systemClock)
  for (let i = 0; i < names.length; i += 100) {
    const success = names.slice(i, i + 100).map((name) => ({
      request_put: { key: Buffer.from(`${prefix}/registry${name}`), value: Buffer.from('{}') },
    }))
    await client.txn({ compare: [], success, failure: [] }, bounded)
  }
  client.close()
}

/** Lets through what was held, and waits until etcd has executed it. */
async function released(proxy: TcpProxy): Promise<void> {
  const before = await member().transactions()
  proxy.mode = 'pass'
  await expect.poll(() => member().transactions(), { timeout: bounded }).toBe(before + 1)
}

const unavailable = expect.objectContaining({ reason: 'ServiceUnavailable' })
const told = ({ type, key, revision }: KvEvent) => `${type} ${key} ${revision}`

describe('etcd that fails', () => {
  it('is used again after a restart; watches go on', async () => {
    const kv = await open()
    const first = await put(kv, '/a/1')
    const watching = take(kv, '/a/', first, 2)
    const second = await put(kv, '/a/2')
    await member().stop()
    const away = kv.get('/a/1')
    member().start()
    await member().serving()
    await outcome(away)
    const third = await put(kv, '/a/3')
    expect((await watching).map(told)).toEqual([`put /a/2 ${second}`, `put /a/3 ${third}`])
    expect((await kv.list('/a/')).entries).toHaveLength(3)
  })

  it('is Unavailable within its deadline while it is stopped; then watches miss and repeat nothing', async () => {
    const kv = await open()
    const { revision } = await kv.list('/')
    const stop = new AbortController()
    const seen: KvEvent[] = []
    const watching = (async () => {
      for await (const event of kv.watch('/a/', revision, stop.signal)) seen.push(event)
    })()
    await put(kv, '/a/1')
    await member().pause()
    const calls = [kv.get('/a/1'), kv.list('/a/'), kv.put('/a/2', 'x', 0n), kv.delete('/a/1', revision + 1n)]
    const failed = await Promise.all(calls.map(outcome))
    member().resume()
    expect(failed).toEqual(calls.map(() => unavailable))
    expect(String(failed[2])).toMatch(/whether \/a\/2 was written, it may have been/)
    await member().serving()
    const last = await put(kv, '/a/3')
    // What was told is what is there: the two whose outcome was unknown may both have come true.
    await expect.poll(() => seen.at(-1)?.revision, { timeout: bounded }).toBe(last)
    const here = new Map<string, bigint>()
    for (const event of seen) {
      if (event.type === 'put') here.set(event.key, event.revision)
      else here.delete(event.key)
    }
    const { entries } = await kv.list('/a/')
    expect([...here].sort()).toEqual(entries.map((entry) => [entry.key, entry.revision]))
    expect(new Set(seen.map(told)).size).toBe(seen.length)
    stop.abort()
    await watching
  })

  it('has written what it did not answer, and that is found out', async () => {
    const { proxy, endpoint } = await proxied()
    const kv = await open({ endpoints: [endpoint, member().endpoint] })
    const { revision: from } = await kv.list('/')
    proxy.mode = 'deaf'
    const revision = await kv.put('/a/1', 'x', 0n)
    const other = await open({ prefix: kv.prefix })
    expect(await other.get('/a/1')).toEqual({ key: '/a/1', value: 'x', revision })
    // Once, and not once more for the answer.
    expect((await take(kv, '/a/', from, 1)).map(told)).toEqual([`put /a/1 ${revision}`])
    expect(await kv.put('/a/1', 'y', 0n)).toBeUndefined()
    proxy.mode = 'pass'
    expect(await kv.put('/a/1', 'y', revision ?? 0n)).toBeGreaterThan(revision ?? 0n)
  })

  it('does not write later what it was asked for while it was stopped', async () => {
    const { proxy, endpoint } = await proxied()
    const kv = await open({ endpoints: [endpoint, member().endpoint] })
    const { revision: from } = await kv.list('/')
    proxy.mode = 'hold'
    // The first attempt is on its way, and will be until the end of this test; the second one is executed.
    const made = await kv.put('/a/1', 'x', 0n)
    const gone = await remove(kv, '/a/1')
    await released(proxy)
    expect(await kv.get('/a/1')).toBeUndefined()
    const last = await put(kv, '/a/2')
    expect((await take(kv, '/', from, 3)).map(told)).toEqual([
      ...[`put /a/1 ${made}`, `delete /a/1 ${gone}`, `put /a/2 ${last}`],
    ])
  })

  it('does not write later what was given up either, once it is written to again', async () => {
    const { proxy, endpoint } = await proxied()
    const second = await proxied()
    const kv = await open({ endpoints: [endpoint, second.endpoint] })
    proxy.mode = 'hold'
    second.proxy.mode = 'cut'
    expect(await outcome(kv.put('/a/1', 'x', 0n))).toEqual(unavailable)
    second.proxy.mode = 'pass'
    // Some other write, as the next one always will be.
    await put(kv, '/b/1')
    await released(proxy)
    expect(await kv.get('/a/1')).toBeUndefined()
  })

  it('goes on watching on another endpoint when a connection is open and dead', async () => {
    const { proxy, endpoint } = await proxied()
    // It has to find out by itself: no ping ends the connection, nobody else asks for anything.
    const kv = await open({ endpoints: [endpoint, member().endpoint], keepaliveMs: 3_600_000 })
    const from = await put(kv, '/a/0')
    const watching = take(kv, '/a/', from, 40)
    await put(kv, '/a/1')
    proxy.mode = 'hole'
    const direct = await open({ prefix: kv.prefix })
    for (let i = 2; i <= 40; i += 1) await put(direct, `/a/${i}`)
    const seen = await watching
    expect(seen.map(({ key }) => key)).toEqual(Array.from({ length: 40 }, (_, i) => `/a/${i + 1}`))
  })

  it('tells watchers that were cut off while their history was compacted', async () => {
    const { proxy, endpoint } = await proxied()
    const kv = await open({ endpoints: [endpoint] })
    const from = await put(kv, '/a/0')
    const stop = new AbortController()
    const watches = [0, 1].map(() => kv.watch('/a/', from, stop.signal)[Symbol.asyncIterator]())
    const firsts = watches.map((watch) => watch.next())
    await put(kv, '/a/1')
    await Promise.all(firsts)
    const ends = watches.map((watch) => outcome(watch.next()))
    proxy.mode = 'cut'
    const direct = await open({ prefix: kv.prefix })
    let last = 0n
    for (let i = 2; i < 10; i += 1) last = await put(direct, `/a/${i}`)
    await lab.ctl('compact', `${last}`)
    proxy.mode = 'pass'
    expect(await Promise.all(ends)).toEqual([0, 1].map(() => expect.objectContaining({ reason: 'Gone' })))
    const again = kv.watch('/a/', last, stop.signal)[Symbol.asyncIterator]()
    const next = again.next()
    await put(kv, '/a/10')
    expect((await next).value?.key).toBe('/a/10')
    stop.abort()
  })

  it('shares one watch of a kind between all its readers', async () => {
    const kv = await open()
    const from = await put(kv, '/g/vms/a/1')
    const stop = new AbortController()
    const prefixes = ['/g/vms/', '/g/vms/a/', '/g/vms/', '/g/pools/']
    const readers = prefixes.map((prefix) => kv.watch(prefix, from, stop.signal)[Symbol.asyncIterator]())
    const next = readers.map((reader) => reader.next())
    await put(kv, '/g/pools/x')
    await put(kv, '/g/vms/a/2')
    expect((await Promise.all(next)).map(({ value }) => value?.key)).toEqual([
      ...['/g/vms/a/2', '/g/vms/a/2', '/g/vms/a/2', '/g/pools/x'],
    ])
    expect(kv.watches).toBe(2)
    stop.abort()
    await Promise.all(readers.map((reader) => reader.next()))
    expect(kv.watches).toBe(0)
  })

  it('keeps nothing of the writes of processes that are gone; who lives and was idle writes on', async () => {
    const history = { limit: 10 }
    const idle = await open()
    const { prefix } = idle
    const first = await put(idle, '/a/1')
    const gone = await open({ prefix })
    await put(gone, '/a/2')
    await gone.close()
    const busy = await open({ prefix, history, sweepAfter: 20n })
    for (let i = 0; i < 100; i += 1) await put(busy, '/b/1', `${i}`)
    await busy.settled()
    const slots = await lab.ctl('get', '--prefix', '--keys-only', `${prefix}/writes/`)
    expect(slots.trim().split('\n')).toHaveLength(1)
    expect(await idle.put('/a/1', 'x', first + 1n)).toBeUndefined()
    expect(await idle.put('/a/1', 'x', first)).toBeGreaterThan(first)
    expect(await idle.delete('/a/2', (await idle.get('/a/2'))?.revision ?? 0n)).toBeDefined()
  })

  it('lists many objects, and large ones, from one moment', async () => {
    const kv = await open({ times: { callMs: 20_000, attemptMs: 10_000 } })
    const names = Array.from({ length: 10_000 }, (_, i) => `/a/${String(i).padStart(5, '0')}`)
    await fill(kv.prefix, names)
    const listing = kv.list('/a/')
    // After its first page, most likely; it must not matter.
    await remove(kv, '/a/09999')
    const { entries, revision } = await listing
    const there = entries.at(-1)?.key === '/a/09999' ? 10_000 : 9_999
    expect(entries.map(({ key }) => key)).toEqual(names.slice(0, there))
    expect((await kv.list('/a/', { at: revision })).entries).toEqual(entries)
    // Pages of small ones have been expected until now; the answer to one of these would be larger than any may be.
    const large = 'x'.repeat(1_400_000)
    for (let i = 0; i < 60; i += 1) await put(kv, `/a/x${i}`, large)
    const rest = await kv.list('/a/', { after: '/a/09999' })
    expect([rest.entries.length, rest.entries.every(({ value }) => value === large)]).toEqual([60, true])
    await expect(kv.put('/a/large', 'x'.repeat(2_000_000), 0n)).rejects.toMatchObject({
      reason: 'RequestEntityTooLarge',
    })
  })

  it('is refused when it has lost data, by every call, and says so', async () => {
    const kv = await open()
    for (let i = 0; i < 5; i += 1) await put(kv, `/a/${i}`)
    await member().stop()
    await member().wipe()
    member().start()
    await member().serving()
    const refused = { reason: 'ServiceUnavailable', message: expect.stringMatching(/has lost data/) }
    expect(await outcome(kv.list('/'))).toMatchObject(refused)
    expect(await outcome(kv.put('/a/9', 'x', 0n))).toMatchObject(refused)
    expect(await outcome(take(kv, '/a/', 1n, 1))).toMatchObject(refused)
  })
})
