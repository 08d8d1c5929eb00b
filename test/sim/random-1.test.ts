import { expect, test } from 'vitest'
import { perFile, searchPart } from './random.ts'

test(`no rule breaks in ${perFile} random schedules, part 1`, { timeout: 3_600_000 }, async () => {
  expect(await searchPart(1)).toContain(`${perFile} schedules from seed 1`)
})
