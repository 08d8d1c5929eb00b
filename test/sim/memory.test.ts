import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { product } from '../../src/sim/product.ts'
import { play } from '../../src/sim/schedule.ts'
import { randomSchedule } from '../../src/sim/search.ts'

test('nothing holds a world that was played to its end', { timeout: 120_000 }, async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const worlds: WeakRef<object>[] = []
  for (let seed = 1; seed <= 5; seed += 1)
    worlds.push(new WeakRef((await play(randomSchedule(seed), product)).world))
  await new Promise((resolve) => setImmediate(resolve))
  collect()
  // The last may still be held by what Node keeps of the turn that ended it.
  expect(worlds.filter((world) => world.deref() !== undefined).length).toBeLessThanOrEqual(1)
})
