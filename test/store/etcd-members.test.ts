import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Log, silentLog } from '../../src/lib/log.ts'
import { isReason } from '../../src/store/errors.ts'
import type { EtcdOptions } from '../../src/store/etcd.ts'
import type { Kv, KvEvent } from '../../src/store/kv.ts'
import { put, take } from '../contract/kv.ts'
import { EtcdLab, type EtcdMember } from '../fakes/etcd-server.ts'
import { openAt } from '../fakes/etcd-stores.ts'

/** An election takes one to two seconds. */
const times = { callMs: 8_000, attemptMs: 700, askMs: 500, answerMs: 500 }

let lab: EtcdLab
const opened: Kv[] = []
beforeAll(async () => {
  lab = await EtcdLab.start({ members: 3 })
})
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close()
})
afterAll(() => lab?.close())

async function open(options: Partial<EtcdOptions> = {}) {
  const kv = await openAt(lab, { times, ...options })
  opened.push(kv)
  return kv
}

async function restart(...members: EtcdMember[]): Promise<void> {
  for (const member of members) member.start()
  await lab.serving()
}

const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => `/a/${from + i}`)

async function putAll(kv: Kv, keys: readonly string[]): Promise<void> {
  for (const key of keys) await put(kv, key)
}

describe('three members of etcd', () => {
  it('lose their leader: writes wait for the next one, watches miss nothing', async () => {
    const kv = await open()
    const { revision } = await kv.list('/')
    const watching = take(kv, '/a/', revision, 20)
    await putAll(kv, names(1, 10))
    const leader = await lab.leader()
    await leader.kill()
    await putAll(kv, names(11, 20))
    expect((await watching).map(({ key }) => key)).toEqual(names(1, 20))
    await restart(leader)
  })

  it('go on without the one that all calls and watches are on, which only falls silent', async () => {
    const kv = await open()
    const { revision } = await kv.list('/')
    const watching = take(kv, '/a/', revision, 20)
    await putAll(kv, names(1, 10))
    // The store uses the first of its endpoints.
    const [first] = lab.members
    await first?.pause()
    await putAll(kv, names(11, 20))
    expect((await watching).map(({ key }) => key)).toEqual(names(1, 20))
    first?.resume()
    await lab.serving()
  })

  it('are Unavailable, in time, when two are lost; with one of them back all goes on', async () => {
    const kv = await open({ times: { ...times, callMs: 2_500 } })
    const { revision } = await kv.list('/')
    const watching = take(kv, '/a/', revision, 4)
    await putAll(kv, names(1, 2))
    const [, second, third] = lab.members as [EtcdMember, EtcdMember, EtcdMember]
    await Promise.all([second.kill(), third.kill()])
    const calls = [kv.get('/a/1'), kv.list('/a/'), kv.put('/a/3', 'x', 0n)]
    for (const call of await Promise.allSettled(calls))
      expect(call).toMatchObject({ status: 'rejected', reason: { reason: 'ServiceUnavailable' } })
    second.start()
    await second.serving()
    if (!(await kv.get('/a/3'))) await put(kv, '/a/3')
    await put(kv, '/a/4')
    expect((await watching).map(({ key }) => key)).toEqual(names(1, 4))
    await restart(third)
  })

  it('end a watch on a member that is cut off from the others, however alive it is', async () => {
    const lost = Promise.withResolvers<unknown>()
    const log: Log = { ...silentLog, warn: (_, fields) => lost.resolve(fields?.['message']) }
    const patient = { askMs: 600_000, answerMs: 600_000, callMs: 8_000 }
    const kv = await open({ endpoints: lab.endpoints.slice(0, 1), times: patient, log })
    const { revision } = await kv.list('/')
    const watching = take(kv, '/a/', revision, 2)
    await put(kv, '/a/1')
    const [, ...others] = lab.members
    for (const other of others) await other.pause()
    expect(await lost.promise).toMatch(/no leader/)
    for (const other of others) other.resume()
    await lab.serving()
    await put(kv, '/a/2')
    expect((await watching).map(({ key }) => key)).toEqual(names(1, 2))
  })
})

const writers = 16
const counters = ['/n/0', '/n/1', '/n/2', '/n/3'] as const

interface Acknowledged {
  readonly key: string
  readonly value: string
  readonly revision: bigint
}

/** Adds one again and again until told to stop; what it was told of each write goes into `acknowledged`. */
async function count(kv: Kv, key: string, stop: AbortSignal, acknowledged: Acknowledged[]): Promise<number> {
  let unknown = 0
  while (!stop.aborted) {
    try {
      const before = await kv.get(key)
      const value = String(Number(before?.value ?? 0) + 1)
      const revision = await kv.put(key, value, before?.revision ?? 0n).catch((error: unknown) => {
        if (/may have been/.test(String(error))) unknown += 1
        throw error
      })
      if (revision !== undefined) acknowledged.push({ key, value, revision })
    } catch (error) {
      if (!isReason(error, 'ServiceUnavailable')) throw error
    }
  }
  return unknown
}

/** Everything that happens to members in turn; each leaves all of them serving. */
const nemeses: readonly ((lab: EtcdLab) => Promise<void>)[] = [
  async () => {
    const leader = await lab.leader()
    await leader.kill()
    await restart(leader)
  },
  async () => {
    const leader = await lab.leader()
    await leader.pause()
    await expect.poll(() => lab.leaders(leader), { timeout: 20_000 }).toBe(1)
    leader.resume()
    await lab.serving()
  },
  async () => {
    const [first, second] = lab.members as [EtcdMember, EtcdMember]
    await Promise.all([first.kill(), second.kill()])
    await restart(first, second)
  },
  async () => {
    for (const member of lab.members) {
      await member.stop()
      await restart(member)
    }
  },
]

describe('sixteen writers while members are killed, stopped and restarted', () => {
  it('lose nothing that was acknowledged; watches tell all of it once, in order', {
    timeout: 120_000,
  }, async () => {
    const first = await open()
    const prefix = first.prefix
    const stores = [
      first,
      await open({ prefix, random: () => 0.5 }),
      await open({ prefix, random: () => 0.9 }),
    ]
    const { revision: from } = await first.list('/')
    const watchEnd = new AbortController()
    const seen: KvEvent[][] = stores.map(() => [])
    const watching = stores.map(async (kv, i) => {
      for await (const event of kv.watch('/n/', from, watchEnd.signal)) seen[i]?.push(event)
    })
    const stop = new AbortController()
    const acknowledged: Acknowledged[] = []
    const counting = Array.from({ length: writers }, (_, i) =>
      count(stores[i % stores.length]!, counters[i % counters.length]!, stop.signal, acknowledged),
    )
    for (const nemesis of nemeses) {
      const before = acknowledged.length
      await nemesis(lab)
      // Writing has gone on, or goes on now.
      await expect.poll(() => acknowledged.length, { timeout: 20_000 }).toBeGreaterThan(before + writers)
    }
    stop.abort()
    const unknown = (await Promise.all(counting)).reduce((sum, one) => sum + one, 0)
    const last = await put(first, '/n/end')
    for (const events of seen)
      await expect.poll(() => events.at(-1)?.revision, { timeout: 20_000 }).toBe(last)
    watchEnd.abort()
    await Promise.all(watching)
    check(seen[0] ?? [], acknowledged, unknown)
    for (const events of seen.slice(1)) expect(events).toEqual(seen[0])
    for (const key of counters) {
      const value = seen[0]?.findLast((event) => event.key === key)
      expect(await first.get(key)).toMatchObject({ revision: value?.revision })
    }
  })
})

function check(events: readonly KvEvent[], acknowledged: readonly Acknowledged[], unknown: number): void {
  const revisions = events.map(({ revision }) => revision)
  expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => Number(a - b)))
  const told = new Map<bigint, string>()
  for (const key of counters) {
    const life = events.filter((event) => event.key === key)
    // Each value once, one after the other.
    const values = life.map((event) => ('value' in event ? event.value : 'deleted'))
    expect(values).toEqual(values.map((_, i) => String(i + 1)))
    expect(life.map(({ previous }) => previous?.revision)).toEqual([
      ...[undefined, ...life.slice(0, -1).map(({ revision }) => revision)],
    ])
    for (const [i, { revision }] of life.entries()) told.set(revision, `${key}=${values[i]}`)
  }
  for (const { key, value, revision } of acknowledged) expect(told.get(revision)).toBe(`${key}=${value}`)
  expect(new Set(acknowledged.map(({ revision }) => revision)).size).toBe(acknowledged.length)
  // What was written and not acknowledged was said to be unknown.
  expect(told.size - acknowledged.length).toBeLessThanOrEqual(unknown)
}
