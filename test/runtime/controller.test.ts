import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { silentLog } from '../../src/lib/log.ts'
import { type Outcome, runController } from '../../src/runtime/controller.ts'
import { WorkQueue } from '../../src/runtime/queue.ts'
import { ApiError } from '../../src/store/errors.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

const done: Outcome = { next: 'done' }
const conflict = () => new ApiError('Conflict', 'somebody else wrote first')

let clock: VirtualClock
let queue: WorkQueue
/** Virtual ms at which each pass began. */
let passes: number[]
let ended: { readonly key: string; readonly ms: number; readonly failed: boolean }[]

beforeEach(() => {
  clock = new VirtualClock()
  queue = new WorkQueue(clock)
  passes = []
  ended = []
})

type Pass = (number: number, signal: AbortSignal, key: string) => Outcome | Promise<Outcome>

/** Runs a controller whose passes are `pass`, by their number from 1. */
function start(pass: Pass, options: { readonly workers?: number; readonly passTimeoutMs?: number } = {}) {
  const stop = new AbortController()
  const running = runController(
    {
      ...{ name: 'test', queue, workers: 1, passTimeoutMs: 10_000, clock, log: silentLog, ...options },
      reconcile: async (key, signal) => {
        passes.push(clock.elapsed())
        return pass(passes.length, signal, key)
      },
      onPass: (key, ms, failed) => ended.push({ key, ms, failed }),
    },
    stop.signal,
  )
  onTestFinished(() => stop.abort())
  return { stop, running }
}

const waits = () => passes.slice(1).map((at, i) => at - (passes[i] ?? 0))

describe('a pass that ends', () => {
  test('done: not looked at again until it is added', async () => {
    start(() => done)
    queue.add('a')
    await clock.advance(3_600_000)
    expect(passes).toEqual([0])
    queue.add('a')
    await clock.settle()
    expect(passes).toHaveLength(2)
    expect(ended).toEqual([
      { key: 'a', ms: 0, failed: false },
      { key: 'a', ms: 0, failed: false },
    ])
  })

  test('again: looked at once more, at once', async () => {
    start((number) => (number < 3 ? { next: 'again' } : done))
    queue.add('a')
    await clock.settle()
    expect(passes).toEqual([0, 0, 0])
  })

  test('wait: looked at after that, or sooner when it is added', async () => {
    start((number) => (number < 3 ? { next: 'wait', ms: 500 } : done))
    queue.add('a')
    await clock.advance(499)
    expect(passes).toEqual([0])
    await clock.advance(101)
    expect(passes).toEqual([0, 500])
    queue.add('a')
    await clock.advance(2_000)
    expect(passes).toEqual([0, 500, 600])
  })
})

describe('a pass that fails', () => {
  test('is tried again later and later, at most every minute', async () => {
    start(() => {
      throw new Error('out of luck')
    })
    queue.add('a')
    await clock.advance(250_000)
    const wanted = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000]
    expect(waits()).toEqual(wanted)
    expect(ended.every(({ failed }) => failed)).toBe(true)
  })

  test('begins anew with short waits after one that did not', async () => {
    start((number) => {
      if (number === 4) return { next: 'wait', ms: 1_000 }
      throw new Error('out of luck')
    })
    queue.add('a')
    await clock.advance(1_500)
    expect(waits()).toEqual([50, 100, 200, 1_000, 50, 100])
  })

  test('costs the others nothing', async () => {
    start((_, _signal, key) => {
      if (key === 'bad') throw new Error('out of luck')
      return done
    })
    queue.add('bad')
    await clock.advance(1_000)
    const before = passes.length
    queue.add('good')
    await clock.settle()
    expect(passes.slice(before)).toEqual([1_000])
  })

  test('by a conflict is tried at once, but not for ever', async () => {
    start((number) => {
      // For ever would be a loop that no deadline ends.
      if (number > 100) return done
      throw conflict()
    })
    queue.add('a')
    await clock.settle()
    const atOnce = passes.length
    expect(atOnce).toBeGreaterThan(1)
    expect(atOnce).toBeLessThan(20)
    await clock.advance(600_000)
    // From then on with back-off: ten minutes hold no more than a pass a minute and the short waits before.
    expect(passes.length).toBeLessThan(atOnce + 25)
  })

  test('by a conflict once is done at the second try', async () => {
    start((number) => {
      if (number === 1) throw conflict()
      return done
    })
    queue.add('a')
    await clock.advance(60_000)
    expect(passes).toEqual([0, 0])
  })
})

describe('a pass that hangs', () => {
  test('is aborted at its deadline and tried again once it has ended, never beside itself', async () => {
    const signals: AbortSignal[] = []
    const hung = Promise.withResolvers<Outcome>()
    start(
      (number, signal) => {
        signals.push(signal)
        return number === 1 ? hung.promise : done
      },
      { passTimeoutMs: 5_000, workers: 2 },
    )
    queue.add('a')
    await clock.advance(4_999)
    expect(signals[0]?.aborted).toBe(false)
    await clock.advance(1)
    expect(signals[0]?.reason).toMatchObject({
      code: 'Timeout',
      message: expect.stringContaining('reconciling a'),
    })
    expect(ended).toEqual([{ key: 'a', ms: 5_000, failed: true }])
    queue.add('a')
    await clock.advance(60_000)
    expect(passes).toEqual([0])
    hung.resolve(done)
    await clock.advance(50)
    expect(passes).toEqual([0, 65_000])
    expect(clock.pending).toBe(0)
  })

  test('holds up one worker and no other', async () => {
    start((_, _signal, key) => (key === 'stuck' ? new Promise<never>(() => {}) : done), { workers: 2 })
    queue.add('stuck')
    queue.add('a')
    queue.add('b')
    await clock.settle()
    expect(ended.map(({ key }) => key)).toEqual(['a', 'b'])
  })
})

describe('workers', () => {
  test('are as many as asked for, and never two on one key', async () => {
    const open: (() => void)[] = []
    const busy: string[] = []
    let most = 0
    start(
      async (_, _signal, key) => {
        expect(busy).not.toContain(key)
        busy.push(key)
        most = Math.max(most, busy.length)
        await new Promise<void>((resolve) => open.push(resolve))
        busy.splice(busy.indexOf(key), 1)
        return done
      },
      { workers: 3 },
    )
    for (const key of ['a', 'b', 'c', 'd', 'a', 'b']) queue.add(key)
    await clock.settle()
    queue.add('a')
    for (let i = 0; i < 10; i++) {
      open.shift()?.()
      await clock.settle()
    }
    expect(most).toBe(3)
    expect(ended.map(({ key }) => key).sort()).toEqual(['a', 'a', 'b', 'b', 'c', 'd'])
  })
})

describe('a stop', () => {
  test('ends idle workers, and drops what waits', async () => {
    const { stop, running } = start(() => ({ next: 'wait', ms: 100 }))
    queue.add('a')
    await clock.settle()
    stop.abort()
    await running
    expect(clock.pending).toBe(0)
    await clock.advance(10_000)
    expect(passes).toEqual([0])
  })

  test('aborts the pass under way, which is no failure', async () => {
    let seen: AbortSignal | undefined
    const { stop, running } = start((_, signal) => {
      seen = signal
      return new Promise<never>((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      })
    })
    queue.add('a')
    queue.add('b')
    await clock.settle()
    stop.abort()
    await running
    expect(seen?.aborted).toBe(true)
    expect(passes).toHaveLength(1)
    expect(ended).toEqual([{ key: 'a', ms: 0, failed: false }])
    expect(clock.pending).toBe(0)
  })

  test('before the start runs nothing', async () => {
    queue.add('a')
    const stop = new AbortController()
    stop.abort()
    const reconcile = async () => {
      passes.push(0)
      return done
    }
    await runController(
      { name: 'test', queue, workers: 2, passTimeoutMs: 1_000, clock, log: silentLog, reconcile },
      stop.signal,
    )
    expect(passes).toEqual([])
  })
})
