import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { WorkQueue } from '../../src/runtime/queue.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let clock: VirtualClock
let queue: WorkQueue

beforeEach(() => {
  clock = new VirtualClock()
  queue = new WorkQueue(clock)
})

describe('keys', () => {
  test('come in order, each once however often it was added', async () => {
    for (const key of ['a', 'b', 'a', 'c', 'b']) queue.add(key)
    expect(queue.depth).toBe(3)
    expect([await queue.take(), await queue.take(), await queue.take()]).toEqual(['a', 'b', 'c'])
  })

  test('go to a worker that waits', async () => {
    const [first, second] = [queue.take(), queue.take()]
    queue.add('a')
    queue.add('b')
    expect([await first, await second]).toEqual(['a', 'b'])
  })

  test('that are added while a worker has them come once more, afterwards', async () => {
    queue.add('a')
    await queue.take()
    queue.add('a')
    queue.add('a')
    expect(queue.depth).toBe(0)
    queue.done('a')
    expect(queue.depth).toBe(1)
    await queue.take()
    queue.done('a')
    expect(queue.depth).toBe(0)
    expect(queue.idle).toBe(true)
  })

  test('that are added while a worker has them do not pass to another one', async () => {
    queue.add('a')
    await queue.take()
    queue.add('a')
    queue.add('b')
    expect(await queue.take()).toBe('b')
    queue.done('a')
    expect(await queue.take()).toBe('a')
    queue.done('a')
    queue.done('b')
    expect(queue.idle).toBe(true)
  })

  test('that were not added again do not come again', async () => {
    queue.add('a')
    await queue.take()
    queue.done('a')
    expect(queue.idle).toBe(true)
    expect(queue.depth).toBe(0)
  })
})

describe('delayed keys', () => {
  test('come when they are due, and not before', async () => {
    queue.addAfter('a', 100)
    expect(queue.idle).toBe(true)
    await clock.advance(99)
    expect(queue.depth).toBe(0)
    await clock.advance(1)
    expect(queue.depth).toBe(1)
  })

  test.each([
    [100, 30],
    [30, 100],
  ])('keep the earliest of %i and %i ms', async (first, second) => {
    queue.addAfter('a', first)
    queue.addAfter('a', second)
    await clock.advance(29)
    expect(queue.depth).toBe(0)
    await clock.advance(1)
    expect(queue.depth).toBe(1)
    expect(await queue.take()).toBe('a')
    queue.done('a')
    await clock.advance(1_000)
    expect(queue.depth).toBe(0)
  })

  test('are measured from when they were added', async () => {
    queue.addAfter('a', 100)
    await clock.advance(60)
    // Due in 50 ms, which is later than the 40 that are left.
    queue.addAfter('a', 50)
    await clock.advance(40)
    expect(queue.depth).toBe(1)
  })

  test('that are added at once come once', async () => {
    queue.addAfter('a', 100)
    queue.add('a')
    expect(await queue.take()).toBe('a')
    queue.done('a')
    await clock.advance(1_000)
    expect(queue.depth).toBe(0)
    expect(clock.pending).toBe(0)
  })

  test('that become due while a worker has them come afterwards', async () => {
    queue.add('a')
    await queue.take()
    queue.addAfter('a', 10)
    await clock.advance(10)
    expect(queue.depth).toBe(0)
    queue.done('a')
    expect(queue.depth).toBe(1)
  })

  test.each([0, -5])('of %i ms are due', (ms) => {
    queue.addAfter('a', ms)
    expect(queue.depth).toBe(1)
  })
})

describe('a closed queue', () => {
  test('lets every worker go, and takes nothing more', async () => {
    const waiting = [queue.take(), queue.take()]
    queue.close()
    expect(await Promise.all(waiting)).toEqual([undefined, undefined])
    queue.add('a')
    queue.addAfter('b', 1)
    await clock.advance(10)
    expect(await queue.take()).toBeUndefined()
  })

  test('drops what waited, was due later, or was to come again', async () => {
    queue.add('busy')
    await queue.take()
    queue.add('busy')
    queue.add('ready')
    queue.addAfter('later', 10)
    queue.close()
    expect(clock.pending).toBe(0)
    queue.done('busy')
    await clock.advance(100)
    expect(await queue.take()).toBeUndefined()
  })
})

test('no key has two workers, and none that was added is lost', async () => {
  const keys = fc.constantFrom('a', 'b', 'c')
  const step = fc.oneof(
    fc.record({ do: fc.constant('add' as const), key: keys }),
    fc.record({ do: fc.constant('later' as const), key: keys, ms: fc.nat(50) }),
    fc.record({ do: fc.constant('tick' as const), ms: fc.nat(50) }),
    fc.record({ do: fc.constant('take' as const) }),
    fc.record({ do: fc.constant('done' as const), key: keys }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const time = new VirtualClock()
      const tested = new WorkQueue(time)
      const busy = new Set<string>()
      /** Added since a worker last began with them. */
      const owed = new Set<string>()
      const takeAll = async (most = Number.POSITIVE_INFINITY) => {
        for (let i = 0; i < most && tested.depth > 0; i++) {
          const key = await tested.take()
          if (key === undefined) throw new Error('closed')
          expect(busy.has(key), `${key} has two workers`).toBe(false)
          busy.add(key)
          owed.delete(key)
        }
      }
      for (const each of steps) {
        if (each.do === 'tick') await time.advance(each.ms)
        else if (each.do === 'take') await takeAll(1)
        else if (each.do === 'done') {
          if (busy.delete(each.key)) tested.done(each.key)
        } else {
          if (each.do === 'add') tested.add(each.key)
          else tested.addAfter(each.key, each.ms)
          owed.add(each.key)
        }
      }
      await time.advance(100)
      for (let round = 0; round < 3; round++) {
        await takeAll()
        for (const key of busy) tested.done(key)
        busy.clear()
      }
      expect([...owed]).toEqual([])
      expect(tested.idle).toBe(true)
    }),
    { numRuns: 200 },
  )
})
