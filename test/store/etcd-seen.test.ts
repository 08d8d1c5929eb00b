import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { silentLog } from '../../src/lib/log.ts'
import { type EtcdKv, type EtcdOptions, openEtcd } from '../../src/store/etcd.ts'
import { doubtMs } from '../../src/store/etcd-cluster.ts'
import {
  contradicts,
  EtcdReplaced,
  type EtcdSeen,
  formatSeen,
  hashOf,
  misfit,
  parseSeen,
} from '../../src/store/etcd-seen.ts'
import { StoreRecord } from '../../src/wire-store-record.ts'
import { EtcdLab } from '../fakes/etcd-server.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const witness = { key: '/p/registry/a', revision: 7n, hash: hashOf('x') }
const seen = { clusterId: '14841639068965178418', revision: 10n, witness }

describe('what is remembered of etcd', () => {
  it.each([
    [{ clusterId: seen.clusterId, revision: 10n }, undefined],
    [{ clusterId: seen.clusterId, revision: 11n }, undefined],
    [{ clusterId: seen.clusterId, revision: 9n }, /revision 9, but revision 10 was there/],
    [{ clusterId: '17', revision: 99n }, /another etcd \(cluster 11\) than before \(cdf818194e3a8c32\)/],
  ] as const)('%o', (now, why) => {
    if (why) expect(misfit(seen, now)).toMatch(why)
    else expect(misfit(seen, now)).toBeUndefined()
  })

  it('has a write that must be there still, as it was', () => {
    expect(contradicts(witness, { revision: 7n, value: 'x' })).toBeUndefined()
    for (const found of [undefined, { revision: 6n, value: 'x' }, { revision: 7n, value: 'y' }])
      expect(contradicts(witness, found)).toMatch(
        /revision 7 was a write to \/p\/registry\/a that is not there/,
      )
  })

  const text = formatSeen({ ...seen, at: '2026-01-02T03:04:05.678Z' })
  it('is read as it was written', () => {
    expect(parseSeen(text)).toEqual({ ...seen, at: '2026-01-02T03:04:05.678Z' })
    const { witness: _, ...less } = seen
    expect(parseSeen(formatSeen({ ...less, at: '2026-01-02T03:04:05Z' }))).toMatchObject(less)
  })

  it('is refused where any of it is missing', () => {
    for (let length = 0; length < text.trimEnd().length; length += 1)
      expect(() => parseSeen(text.slice(0, length)), text.slice(0, length)).toThrow(/empty|torn/)
  })

  it.each([
    '[]',
    'null',
    '"x"',
    '{}',
    text.replace('"version":1', '"version":2'),
    text.replace('"10"', '-10'),
  ])('is refused as %s', (other) => {
    expect(() => parseSeen(other)).toThrow(expect.objectContaining({ code: 'BadStoreRecord' }))
  })
})

describe('the record in the data folder', () => {
  const folder = mkdtempSync(join(tmpdir(), 'plasmavmc-seen-'))
  const file = join(folder, 'etcd-seen.json')
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const record = (clock = new VirtualClock(), write?: (file: string, text: string) => Promise<void>) =>
    new StoreRecord({ file, clock, log: silentLog, ...(write && { write }) })

  it('is written at the start, every 10 s while the store changes, and at the end', async () => {
    const clock = new VirtualClock()
    const written: string[] = []
    let now: EtcdSeen = { clusterId: '1', revision: 1n }
    const one = record(clock, async (_, content) => {
      written.push(String(parseSeen(content).revision))
    })
    expect(one.read(false)).toBeUndefined()
    await one.begin(() => now, false)
    await clock.advance(30_000)
    now = { ...now, revision: 2n }
    await clock.advance(9_000)
    now = { ...now, revision: 3n }
    await clock.advance(1_000)
    now = { ...now, revision: 4n }
    await one.end()
    expect(written).toEqual(['1', '3', '4'])
  })

  it('outlives a write that fails, and is made later', async () => {
    const clock = new VirtualClock()
    let full = true
    const written: string[] = []
    const one = record(clock, async (_, content) => {
      if (full) throw new Error('no space left')
      written.push(content)
    })
    one.read(false)
    await one.begin(() => ({ clusterId: '1', revision: 1n }), false)
    full = false
    await clock.advance(10_000)
    expect(written).toHaveLength(1)
    await one.end()
    // What a person has accepted would be asked for again at the next start.
    full = true
    const other = record(clock, async () => {
      throw new Error('no space left')
    })
    other.read(true)
    await expect(other.begin(() => ({ clusterId: '1', revision: 1n }), true)).rejects.toMatchObject({
      code: 'StoreRecordFailed',
      message: expect.stringContaining(file),
    })
  })

  it('is whole on the disk; what is no record is named, and taken for none only where a person says so', async () => {
    const one = record()
    one.read(false)
    await one.begin(() => seen, false)
    await one.end()
    expect(readdirSync(folder)).toEqual(['etcd-seen.json'])
    expect(record().read(false)).toMatchObject(seen)
    writeFileSync(file, readFileSync(file).subarray(0, 30))
    expect(() => record().read(false)).toThrow(
      expect.objectContaining({
        ...{ code: 'BadStoreRecord', message: expect.stringContaining(file) },
        hint: expect.stringContaining('--accept-store-reset'),
      }),
    )
    expect(record().read(true)).toBeUndefined()
    rmSync(file)
    expect(record().read(false)).toBeUndefined()
  })
})

describe('an etcd that another process has seen', () => {
  let lab: EtcdLab
  const opened: EtcdKv[] = []
  beforeAll(async () => {
    lab = await EtcdLab.start()
  })
  afterEach(async () => {
    for (const kv of opened.splice(0)) await kv.close()
  })
  afterAll(() => lab?.close())

  async function open(more: Pick<EtcdOptions, 'seen' | 'forget'> = {}): Promise<EtcdKv> {
    const kv = await openEtcd({ endpoints: lab.endpoints, ...more })
    opened.push(kv)
    return kv
  }

  it('is the same where it has gone on, also past what its history reaches back to', async () => {
    const first = await open()
    const before = await first.put('/a', 'x', 0n)
    const known = first.seen
    expect(known.witness).toMatchObject({ revision: before, hash: hashOf('x') })
    const last = await first.put('/a', 'y', before ?? 0n)
    const second = await open({ seen: known })
    // Until it has seen one of its own.
    expect(second.seen.witness).toEqual(known.witness)
    await second.get('/a')
    expect(second.seen.witness).toMatchObject({ revision: last, hash: hashOf('y') })
    await lab.ctl('compact', String(last))
    await open({ seen: known })
  })

  it('is another where it went back, and where it has come as far again by other writes', async () => {
    const first = await open()
    const known = first.seen
    await expect(open({ seen: { ...known, revision: known.revision + 1n } })).rejects.toThrow(EtcdReplaced)
    await expect(open({ seen: { ...known, clusterId: '1' } })).rejects.toThrow(/another etcd/)
    const revision = (await first.put('/b', 'here', 0n)) ?? 0n
    const elsewhere = { key: '/plasmavmc/registry/b', revision, hash: hashOf('there') }
    await expect(open({ seen: { ...first.seen, witness: elsewhere } })).rejects.toThrow(/has another history/)
  })

  it('is used as it is by who must go on: if it is of the same cluster, after a time without one that fits', async () => {
    let replaced = 0
    const onReplaced = () => {
      replaced += 1
    }
    const forget = { afterMs: 1_500, anchor: '/key', onReplaced }
    const [guard, server, late] = [await open({ forget }), await open(), await open()]
    await guard.put('/key', 'of the cluster', 0n)
    const [member] = lab.members
    const snapshot = join(tmpdir(), `plasmavmc-seen-${process.pid}.db`)
    await lab.ctl('snapshot', 'save', snapshot)
    const before = await guard.put('/c', '1', 0n)
    for (const one of [server, late]) await one.get('/c')
    const heard = performance.now()
    const start = async () => {
      member?.start()
      await member?.serving()
    }
    const refused = { reason: 'ServiceUnavailable', message: expect.stringMatching(/lost data/) }
    // An empty one knows nothing of the cluster: there its hosts would not find each other any more.
    await member?.stop()
    await member?.wipe()
    await start()
    for (const one of [guard, server]) await expect(one.get('/c')).rejects.toMatchObject(refused)
    await new Promise((resolve) => setTimeout(resolve, forget.afterMs))
    await expect(guard.get('/c')).rejects.toMatchObject(refused)
    await member?.stop()
    await member?.restore(snapshot)
    rmSync(snapshot)
    await start()
    expect(replaced).toBe(0)
    expect(await guard.get('/c')).toBeUndefined()
    expect(replaced).toBe(1)
    // A write whose slot was another's in that store before.
    expect(await guard.put('/c', '2', before ?? 0n)).toBeUndefined()
    expect(await guard.put('/c', '2', 0n)).toBeDefined()
    // A server never does.
    await expect(server.get('/c')).rejects.toMatchObject(refused)
    await expect(server.probe(1_000)).rejects.toMatchObject(refused)
    // Nor one that looks only now that the revision is as high again.
    for (let i = 0; i < 5; i += 1) await guard.put(`/e/${i}`, '', 0n)
    const silentMs = performance.now() - heard
    await new Promise((resolve) => setTimeout(resolve, doubtMs - silentMs + 100))
    await expect(late.get('/c')).rejects.toThrow(/has another history/)
  })

  it('is refused before that, even where it is of the same cluster', async () => {
    const guard = await open({ forget: { afterMs: 600_000, anchor: '/key' } })
    const snapshot = join(tmpdir(), `plasmavmc-seen-${process.pid}.db`)
    await guard.get('/key')
    await lab.ctl('snapshot', 'save', snapshot)
    await guard.put('/d', '1', 0n)
    const [member] = lab.members
    await member?.stop()
    await member?.restore(snapshot)
    rmSync(snapshot)
    member?.start()
    await member?.serving()
    await expect(guard.get('/d')).rejects.toThrow(EtcdReplaced)
  })

  describe('beside which a member was started as a cluster of its own', () => {
    let stray: EtcdLab
    let known: EtcdSeen
    beforeAll(async () => {
      stray = await EtcdLab.start()
      const kv = await open()
      await kv.put('/home', 'here', 0n)
      known = kv.seen
    })
    afterAll(() => stray?.close())

    /** With the stray one as the first endpoint. */
    async function amid(
      more: Pick<EtcdOptions, 'seen' | 'forget'>,
      endpoints = [...stray.endpoints, ...lab.endpoints],
    ) {
      const kv = await openEtcd({ ...{ endpoints, random: () => 0 }, ...more })
      opened.push(kv)
      return kv
    }
    const guard = { forget: { afterMs: 1_500, anchor: '/key' } }

    it.each([
      ['a server', {}],
      ['a guard, which knows no more than which etcd it is', guard],
    ])('%s goes on with the one that it knows', async (_who, more) => {
      const kv = await amid({ seen: { clusterId: known.clusterId, revision: 0n }, ...more })
      expect((await kv.get('/home'))?.value).toBe('here')
    })

    it('refuses the other, until the one that is known is back', async () => {
      const kv = await amid({ seen: known })
      const [member] = lab.members
      await member?.stop()
      const late = amid({ seen: known }).then((one) => one.get('/home'))
      const refused = [kv.get('/home'), late].map((asked) =>
        expect(asked).rejects.toMatchObject({
          code: expect.stringMatching(/^(ServiceUnavailable|StoreUnusable)$/),
        }),
      )
      await Promise.all(refused)
      member?.start()
      await member?.serving()
      await expect
        .poll(() => kv.get('/home').catch(() => undefined), { timeout: 5_000 })
        .toMatchObject({ value: 'here' })
    })

    it('a guard that starts takes the other for the one that counts where most endpoints are of it', async () => {
      const [endpoint = ''] = stray.endpoints
      const dead = 'http://127.0.0.1:9'
      const kv = await amid({ seen: known, ...guard }, [endpoint, endpoint, dead])
      expect(await kv.get('/home')).toBeUndefined()
      await expect(amid({ seen: known }, [endpoint, endpoint, dead])).rejects.toThrow(EtcdReplaced)
      await expect(amid({ seen: known, ...guard }, [endpoint, dead])).rejects.toMatchObject({
        code: 'StoreUnusable',
      })
    })
  })
})
