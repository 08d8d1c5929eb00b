import { expect, onTestFinished, test } from 'vitest'
import { Namespace } from '../../src/resources/kinds.ts'
import { ApiError } from '../../src/store/errors.ts'
import { listAndWatch } from '../../src/store/list-watch.ts'
import type { ObjectStore } from '../../src/store/objects.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

/** A watch that shows nothing and fails once `held` resolves, or ends with the signal. */
function failing(error: Error, held: Promise<void>, signal: AbortSignal): AsyncIterable<never> {
  const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
  const next = async (): Promise<IteratorResult<never>> => {
    await Promise.race([held, stopped])
    if (signal.aborted) return { done: true, value: undefined }
    throw error
  }
  return { [Symbol.asyncIterator]: () => ({ next }) }
}

/** Lists at once; each watch does what the test says. Tells when each list was asked for, in virtual ms. */
function begin(watch: (clock: VirtualClock, signal: AbortSignal) => AsyncIterable<never>) {
  const clock = new VirtualClock()
  const stop = new AbortController()
  const lists: number[] = []
  const store = {
    list: async () => {
      lists.push(clock.elapsed())
      return { items: [], resourceVersion: '1' }
    },
    watch: () => watch(clock, stop.signal),
  } as unknown as ObjectStore
  const running = (async () => {
    for await (const _ of listAndWatch(store, Namespace, {}, stop.signal, clock));
  })()
  onTestFinished(async () => {
    stop.abort()
    await running
  })
  return { clock, lists, waits: () => lists.slice(1).map((at, i) => at - (lists[i] ?? 0)) }
}

test('a watch that fails at once is tried less and less often, though its list succeeds', async () => {
  const { clock, waits } = begin((_clock, signal) =>
    failing(new ApiError('ServiceUnavailable', 'no watches today'), Promise.resolve(), signal),
  )
  await clock.advance(120_000)
  const all = waits()
  expect(all.slice(0, 5)).toEqual([100, 200, 400, 800, 1_600])
  expect(Math.max(...all)).toBe(10_000)
})

test('one that held for a while is made anew at once', async () => {
  let watches = 0
  const { clock, lists } = begin((time, signal) => {
    watches += 1
    const held = new Promise<void>((resolve) => time.after(60_000, resolve))
    return failing(new ApiError('Gone', 'too old'), held, signal)
  })
  await clock.advance(200_000)
  expect(watches).toBe(4)
  expect(lists).toEqual([0, 60_050, 120_100, 180_150])
})
