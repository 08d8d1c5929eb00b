import { queryObjects } from 'node:v8'
import { expect, test } from 'vitest'
import { randomCourse } from '../../src/sim/draw.ts'
import { product } from '../../src/sim/product.ts'
import { play } from '../../src/sim/schedule.ts'
import { collected, held } from '../fakes/collected.ts'

test('nothing holds a world that was played to its end', { timeout: 120_000 }, async () => {
  const worlds: WeakRef<object>[] = []
  for (let seed = 1; seed <= 5; seed += 1)
    worlds.push(new WeakRef((await play(randomCourse(seed, 1), product)).world))
  await collected()
  // The last may still be held by what Node keeps of the turn that ended it.
  expect(held(worlds)).toBeLessThanOrEqual(1)
})

test('a cluster in which nothing happens holds no more as time goes by', { timeout: 120_000 }, async () => {
  const course = randomCourse(1, 1)
  const schedules = course.schedules.map((one) => ({ ...one, faults: [], healAt: 60_000 }))
  const { world } = await play({ ...course, schedules }, product)
  // Whatever waits has promises; this collects what nothing holds first.
  const promises = () => queryObjects(Promise, { format: 'count' })
  const before = promises()
  await world.run(360_000)
  // Each of three hosts has looked at things thousands of times.
  expect(promises() - before).toBeLessThan(50)
})
