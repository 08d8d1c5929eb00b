import { expect, it } from 'vitest'
import { inLanes } from '../../src/server/lanes.ts'

it('does everything once, and never more at a time than it may', async () => {
  let now = 0
  let most = 0
  const done: number[] = []
  await inLanes(
    Array.from({ length: 100 }, (_, i) => i),
    7,
    async (item) => {
      now += 1
      most = Math.max(most, now)
      await new Promise(setImmediate)
      done.push(item)
      now -= 1
    },
  )
  expect([most, done.length, new Set(done).size]).toEqual([7, 100, 100])
})

it('begins nothing more once something failed, and says what', async () => {
  const begun: number[] = []
  const work = async (item: number) => {
    begun.push(item)
    await new Promise(setImmediate)
    if (item === 3) throw new Error('three')
  }
  await expect(inLanes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2, work)).rejects.toThrow('three')
  await new Promise(setImmediate)
  expect(begun.length).toBeLessThan(7)
})

it('ends where there is nothing to do', async () => {
  await inLanes([], 5, () => Promise.reject(new Error('never')))
})
