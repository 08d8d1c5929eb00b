import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { silentLog } from '../../src/lib/log.ts'
import { Lease } from '../../src/resources/kinds.ts'
import { runElector } from '../../src/runtime/elector.ts'
import { checkTerms, defaultTerms, LeaseContender } from '../../src/runtime/lease.ts'
import { KvObjects } from '../../src/store/kv-objects.ts'
import { MemoryKv } from '../../src/store/memory.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const ref = { namespace: 'default', name: 'leader' }
const terms = defaultTerms

let clock: VirtualClock
let objects: ObjectStore

beforeEach(() => {
  clock = new VirtualClock()
  let uids = 0
  objects = new KvObjects(new MemoryKv(), { clock, newUid: () => `uid-${uids++}` })
})

const contender = (identity: string, store = objects) =>
  new LeaseContender({ objects: store, clock, ref, identity, terms })

/** A store that a test can cut off: calls then wait until it is mended. */
function cuttable(): { store: ObjectStore; cut: () => void; mend: () => void } {
  let gate: PromiseWithResolvers<void> | undefined
  const through = async <T>(work: () => Promise<T>): Promise<T> => {
    await gate?.promise
    return work()
  }
  const store: ObjectStore = {
    get: (kind, name) => through(() => objects.get(kind, name)),
    list: (kind, options) => through(() => objects.list(kind, options)),
    create: (kind, object, options) => through(() => objects.create(kind, object, options)),
    update: (kind, object, options) => through(() => objects.update(kind, object, options)),
    updateStatus: (kind, object, options) => through(() => objects.updateStatus(kind, object, options)),
    delete: (kind, name, options) => through(() => objects.delete(kind, name, options)),
    watch: (kind, options) => objects.watch(kind, options),
  }
  return {
    store,
    cut: () => {
      gate ??= Promise.withResolvers()
    },
    mend: () => {
      gate?.resolve()
      gate = undefined
    },
  }
}

describe('a contender', () => {
  test('makes the lease, renews it under the same epoch, and keeps others out meanwhile', async () => {
    const [a, b] = [contender('a'), contender('b')]
    expect(await a.attempt()).toEqual({ held: true, epoch: 1, sentAt: 0 })
    for (let i = 1; i <= 20; i += 1) {
      await clock.advance(terms.renewMs)
      expect(await a.attempt()).toEqual({ held: true, epoch: 1, sentAt: i * terms.renewMs })
      expect(await b.attempt()).toMatchObject({ held: false, holder: 'a' })
    }
  })

  test('takes it under the next epoch once it has seen no change for the whole duration', async () => {
    const [a, b] = [contender('a'), contender('b')]
    await a.attempt()
    // Whatever time stands in the record: b has only just seen it.
    await clock.advance(3_600_000)
    expect(await b.attempt()).toMatchObject({ held: false, holder: 'a' })
    await clock.advance(terms.durationMs - 1)
    expect(await b.attempt()).toMatchObject({ held: false, retryInMs: 1 })
    await clock.advance(1)
    expect(await b.attempt()).toMatchObject({ held: true, epoch: 2 })
    expect(await a.attempt()).toMatchObject({ held: false, holder: 'b' })
  })

  test('does not take what was renewed between its look and its write', async () => {
    const [a, b] = [contender('a'), contender('b')]
    await a.attempt()
    await b.attempt()
    await clock.advance(terms.durationMs)
    const late = new LeaseContender({
      objects: Object.assign(Object.create(objects) as ObjectStore, {
        get: async () => {
          const seen = await objects.get(Lease, ref)
          await a.attempt()
          return seen
        },
      }),
      ...{ clock, ref, identity: 'c', terms },
    })
    expect(await late.attempt()).toMatchObject({ held: false })
    await clock.advance(terms.durationMs)
    expect(await late.attempt()).toMatchObject({ held: false })
    expect((await objects.get(Lease, ref)).spec.holderIdentity).toBe('a')
  })

  test('takes over at once what it held in an earlier life, under the next epoch', async () => {
    await contender('a').attempt()
    expect(await contender('a').attempt()).toMatchObject({ held: true, epoch: 2 })
  })

  test('released, it is free for others at once', async () => {
    const [a, b] = [contender('a'), contender('b')]
    await a.attempt()
    await a.release()
    expect(await b.attempt()).toMatchObject({ held: true, epoch: 2 })
    await a.release()
    expect((await objects.get(Lease, ref)).spec.holderIdentity).toBe('b')
  })

  test('exactly one of many wins', async () => {
    const many = Array.from({ length: 20 }, (_, i) => contender(`c${i}`))
    const attempts = await Promise.all(many.map((one) => one.attempt()))
    expect(attempts.filter(({ held }) => held)).toHaveLength(1)
  })
})

describe('an elector', () => {
  /** Runs one; tells when its terms begin and end, in virtual ms. */
  function elect(identity: string, store = objects) {
    const terms_: { epoch: number; from: number; to?: number }[] = []
    const stop = new AbortController()
    const running = runElector(
      {
        ...{ contender: contender(identity, store), terms, clock, log: silentLog },
        lead: (epoch, signal) =>
          new Promise((resolve) => {
            const one: (typeof terms_)[number] = { epoch, from: clock.elapsed() }
            terms_.push(one)
            signal.addEventListener('abort', () => {
              one.to = clock.elapsed()
              resolve()
            })
          }),
      },
      stop.signal,
    )
    onTestFinished(() => stop.abort())
    return { terms: terms_, stop, running }
  }

  test('leads as long as it renews, and hands over at once when it is told to stop', async () => {
    const a = elect('a')
    await clock.settle()
    const b = elect('b')
    await clock.advance(60_000)
    expect(a.terms).toEqual([{ epoch: 1, from: 0 }])
    expect(b.terms).toEqual([])
    a.stop.abort()
    await clock.advance(terms.renewMs)
    await a.running
    expect(b.terms).toMatchObject([{ epoch: 2 }])
  })

  test('cut off from the store it stops before another may begin, though no call of it ever returns', async () => {
    const link = cuttable()
    const a = elect('a', link.store)
    await clock.settle()
    const b = elect('b')
    await clock.advance(10_000)
    link.cut()
    await clock.advance(60_000)
    const [first] = a.terms
    expect(first?.to).toBeDefined()
    expect(b.terms).toHaveLength(1)
    expect(first?.to ?? Number.NaN).toBeLessThan(b.terms[0]?.from ?? 0)
    link.mend()
    await clock.advance(60_000)
    expect(a.terms).toHaveLength(1)
    expect(b.terms[0]?.to).toBeUndefined()
  })

  test('a store that is away for less than the deadline costs no term', async () => {
    const link = cuttable()
    const a = elect('a', link.store)
    await clock.advance(9_000)
    link.cut()
    await clock.advance(2_500)
    link.mend()
    await clock.advance(60_000)
    expect(a.terms).toEqual([{ epoch: 1, from: 0 }])
  })
})

describe('terms', () => {
  test('the defaults hold with three seconds to stop', () => {
    expect(() => checkTerms(defaultTerms, 3_000)).not.toThrow()
  })

  test.each([
    [{ renewMs: 3_000, deadlineMs: 6_000, durationMs: 10_000 }, 4_000],
    [{ renewMs: 6_000, deadlineMs: 6_000, durationMs: 10_000 }, 0],
    [{ renewMs: 3_000, deadlineMs: 9_900, durationMs: 10_000 }, 0],
    [{ renewMs: 0, deadlineMs: 6_000, durationMs: 10_000 }, 0],
  ])('%o with %i ms to stop are refused', (bad, stopMs) => {
    expect(() => checkTerms(bad, stopMs)).toThrow(/can't be given up in time/)
  })
})
