import { expect, test } from 'vitest'
import { perFile, searchPart } from './random.ts'

test(`no rule breaks in ${perFile} random schedules, part 2`, { timeout: 3_600_000 }, async () => {
  expect(await searchPart(2)).toContain(`${perFile} schedules from seed 2`)
})
