import fc from 'fast-check'
import { expect, test } from 'vitest'
import { exponential } from '../../src/runtime/backoff.ts'

test('doubles from the base to the cap', () => {
  const waits = [0, 1, 2, 3, 4, 5].map((failures) => exponential(failures, 50, 500))
  expect(waits).toEqual([0, 50, 100, 200, 400, 500])
})

test('never shrinks, never passes the cap, whatever the number of failures', () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.integer({ min: 1, max: 1_000 }),
      fc.integer({ min: 1_000, max: 1e9 }),
      (n, base, cap) => {
        const [wait, next] = [exponential(n, base, cap), exponential(n + 1, base, cap)]
        expect(next).toBeGreaterThanOrEqual(wait)
        expect(next).toBeLessThanOrEqual(cap)
        expect(next).toBeGreaterThan(0)
      },
    ),
  )
})
