import { queryObjects } from 'node:v8'
import { expect, test } from 'vitest'
import { product } from '../../src/sim/product.ts'
import { play } from '../../src/sim/schedule.ts'
import { randomSchedule } from '../../src/sim/search.ts'
import { collected, held } from '../fakes/collected.ts'

test('nothing holds a world that was played to its end', { timeout: 120_000 }, async () => {
  const worlds: WeakRef<object>[] = []
  for (let seed = 1; seed <= 5; seed += 1)
    worlds.push(new WeakRef((await play(randomSchedule(seed), product)).world))
  await collected()
  // The last may still be held by what Node keeps of the turn that ended it.
  expect(held(worlds)).toBeLessThanOrEqual(1)
})

test('a cluster in which nothing happens holds no more as time goes by', { timeout: 120_000 }, async () => {
  const { world } = await play({ ...randomSchedule(1), faults: [], healAt: 60_000 }, product)
  // Whatever waits has promises; this collects what nothing holds first.
  const promises = () => queryObjects(Promise, { format: 'count' })
  const before = promises()
  await world.run(360_000)
  // Each of three hosts has looked at things thousands of times.
  expect(promises() - before).toBeLessThan(50)
})
