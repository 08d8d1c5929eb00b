import { beforeEach, describe, expect, test } from 'vitest'
import { fencedHolder } from '../../src/resources/host-lease.ts'
import { Lease } from '../../src/resources/kinds.ts'
import { defaultTerms, LeaseContender, type LeaseOptions, takeOver } from '../../src/runtime/lease.ts'
import { ApiError } from '../../src/store/errors.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const ref = { namespace: 'plasmavmc-system', name: 'host-a' }
const terms = defaultTerms

let clock: VirtualClock
let objects: ObjectStore

beforeEach(() => {
  clock = new VirtualClock()
  let uids = 0
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => `uid-${uids++}` })
})

const owner = (options: Partial<LeaseOptions> = {}) =>
  new LeaseContender({
    ...{ objects, clock, ref, identity: 'a', terms, own: { mayReturn: async () => 0 } },
    ...options,
  })

/** The store with some calls of the test's own. */
const storeWith = (calls: Partial<ObjectStore>) =>
  new Proxy(objects, {
    get: (target, name) => {
      const own = calls[name as keyof ObjectStore]
      if (own) return own
      const value = Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

const stored = () => objects.get(Lease, ref)
const fence = async (silentMs = 10_000, neededMs = 10_000) =>
  takeOver(await stored(), { objects, clock, terms, silentMs, neededMs })

describe('the owner of a lease', () => {
  test('takes up what it held in an earlier life under the same epoch', async () => {
    expect(await owner().attempt()).toMatchObject({ held: true, epoch: 1 })
    expect(await owner().attempt()).toMatchObject({ held: true, epoch: 1 })
  })

  test('takes a fenced one back under the epoch it was fenced with, and renews it under that', async () => {
    const a = owner()
    await a.attempt()
    expect(await fence()).toMatchObject({ spec: { holderIdentity: fencedHolder, leaseTransitions: 2 } })
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    expect((await stored()).spec.holderIdentity).toBe('a')
  })

  test('keeps its epoch where the store was restored to a time before it had it', async () => {
    const a = owner()
    await a.attempt()
    const before = await stored()
    await fence()
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    const { resourceVersion } = (await stored()).metadata
    await objects.update(Lease, { ...before, metadata: { ...before.metadata, resourceVersion } } as Lease)
    expect((await stored()).spec.leaseTransitions).toBe(1)
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    // And so does the guard after this one.
    const { resourceVersion: now } = (await stored()).metadata
    await objects.update(Lease, {
      ...before,
      metadata: { ...before.metadata, resourceVersion: now },
    } as Lease)
    const next = owner({ own: { mayReturn: async () => 0, leastEpoch: 2 } })
    expect(await next.attempt()).toMatchObject({ held: true, epoch: 2 })
  })

  test('does neither before it may', async () => {
    let waitMs = 700
    const asked: [string | undefined, number][] = []
    const mayReturn = async (lease: Lease, silentMs: number) => {
      asked.push([lease.spec.holderIdentity, silentMs])
      return waitMs
    }
    await owner().attempt()
    await fence()
    const a = owner({ own: { mayReturn } })
    expect(await a.attempt()).toEqual({ held: false, holder: fencedHolder, epoch: 2, retryInMs: 700 })
    await clock.advance(5_000)
    waitMs = 100_000
    expect(await a.attempt()).toMatchObject({ held: false, retryInMs: terms.renewMs })
    expect((await stored()).spec.holderIdentity).toBe(fencedHolder)
    waitMs = 0
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    expect(asked).toEqual([
      [fencedHolder, 0],
      [fencedHolder, 5_000],
      [fencedHolder, 5_000],
    ])
  })

  test('is not asked while it renews', async () => {
    const a = owner()
    await a.attempt()
    const never = owner({ own: { mayReturn: () => Promise.reject(new Error('asked')) } })
    await expect(never.attempt()).rejects.toThrow('asked')
    for (let i = 0; i < 3; i++) expect(await a.attempt()).toMatchObject({ held: true, epoch: 1 })
  })

  test('of another identity it is taken only once it has run out, under the next epoch', async () => {
    await owner({ identity: 'a/old' }).attempt()
    const a = owner()
    expect(await a.attempt()).toMatchObject({ held: false, holder: 'a/old' })
    await clock.advance(terms.durationMs)
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
  })

  test('released and taken up again it keeps its epoch', async () => {
    const a = owner()
    await a.attempt()
    await a.release()
    expect(await owner().attempt()).toMatchObject({ held: true, epoch: 1 })
  })

  test('makes one that was deleted anew under an epoch that is not older', async () => {
    const a = owner()
    await a.attempt()
    await fence()
    await a.attempt()
    await objects.delete(Lease, ref)
    expect(await a.attempt()).toMatchObject({ held: true, epoch: 2 })
    await objects.delete(Lease, ref)
    const own = { mayReturn: async () => 0, leastEpoch: 7 }
    expect(await owner({ own }).attempt()).toMatchObject({ held: true, epoch: 7 })
  })

  test('a renewal that was under way when the lease was taken does not win it back', async () => {
    const a = owner()
    await a.attempt()
    const late = storeWith({
      get: async () => {
        const seen = await stored()
        await fence()
        return seen as never
      },
    })
    const mine = owner({ objects: late })
    expect(await mine.attempt()).toMatchObject({ held: false, holder: '' })
    expect((await stored()).spec).toMatchObject({ holderIdentity: fencedHolder, leaseTransitions: 2 })
  })
})

describe('what a renewal says', () => {
  const names = { 'plasmavmc.io/members': 'a,b', 'plasmavmc.io/maintenance': 'yes' }

  test('takes the place of what was said before, and leaves what others noted', async () => {
    let facts: Record<string, string> = names
    const a = owner({ facts: () => facts })
    expect(await a.attempt()).toMatchObject({ held: true, facts: names })
    const before = await stored()
    const annotations = { ...before.metadata.annotations, note: 'kept' }
    await objects.update(Lease, { ...before, metadata: { ...before.metadata, annotations } })
    facts = { 'plasmavmc.io/members': 'a' }
    expect(await a.attempt()).toMatchObject({ held: true, facts })
    expect((await stored()).metadata.annotations).toEqual({ 'plasmavmc.io/members': 'a', note: 'kept' })
  })

  test('is told of those that were sent last and succeeded, not of those that failed', async () => {
    let n = 0
    let broken = false
    const failing = storeWith({
      update: async (kind, object) => {
        const written = await objects.update(kind, object)
        if (broken) throw new ApiError('ServiceUnavailable', 'the answer was lost')
        return written
      },
    })
    const a = owner({ objects: failing, facts: () => ({ 'plasmavmc.io/n': String(++n) }) })
    await a.attempt()
    broken = true
    await expect(a.attempt()).rejects.toThrow('lost')
    broken = false
    expect(await a.attempt()).toMatchObject({ held: true, facts: { 'plasmavmc.io/n': '3' } })
  })
})

describe('taking a lease over', () => {
  test('is refused before it was silent for long enough, and where its version is not known', async () => {
    await owner().attempt()
    await expect(fence(9_999)).rejects.toThrow('was seen silent for 9999 ms, which must be 10000')
    await expect(fence(Number.NaN)).rejects.toThrow('seen silent')
    const { metadata, ...lease } = await stored()
    const { resourceVersion: _, ...rest } = metadata
    const blind = takeOver(
      { ...lease, metadata: rest },
      { objects, clock, terms, silentMs: 10_000, neededMs: 0 },
    )
    await expect(blind).rejects.toThrow('seen silent')
    expect((await stored()).spec.holderIdentity).toBe('a')
  })

  test('fails where the holder wrote since, or the lease is gone', async () => {
    const a = owner()
    await a.attempt()
    const seen = await stored()
    await clock.advance(10)
    await a.attempt()
    const options = { objects, clock, terms, silentMs: 10_000, neededMs: 10_000 }
    expect(await takeOver(seen, options)).toBeUndefined()
    const now = await stored()
    await objects.delete(Lease, ref)
    expect(await takeOver(now, options)).toBeUndefined()
  })

  test('keeps what the host announced', async () => {
    await owner({ facts: () => ({ 'plasmavmc.io/members': 'a,b,c' }) }).attempt()
    expect((await fence())?.metadata.annotations).toEqual({ 'plasmavmc.io/members': 'a,b,c' })
  })
})
