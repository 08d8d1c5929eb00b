import { describe, expect, test } from 'vitest'
import { type Read, silenceOf, type Watched, watched } from '../../../src/controllers/hosts/sight.ts'
import type { Lease } from '../../../src/resources/kinds.ts'
import { lease } from './fixture.ts'

/** Reads each second that take 100 ms, the versions of a's lease in them; `undefined` is a read that failed. */
type Step = { readonly at: number; readonly took?: number; readonly version?: string; readonly failed?: true }

function reads(steps: readonly Step[]): Watched | undefined {
  let known: Watched | undefined
  for (const { at, took = 100, version, failed } of steps) {
    const leases: Lease[] = version === undefined ? [] : [lease('a', { resourceVersion: version })]
    const read: Read = { startedAt: at, endedAt: at + took, leases }
    known = watched(known, failed ? undefined : read)
  }
  return known
}

function silence(steps: readonly Step[]) {
  const known = reads(steps)
  const sight = known?.sights.get('a')
  return known && sight ? silenceOf(sight, known) : undefined
}

/** The same version from `from` on, each second. */
const steady = (from: number, to: number, version: string): Step[] =>
  Array.from({ length: (to - from) / 1000 + 1 }, (_, i) => ({ at: from + i * 1000, version }))

describe('how long a lease is silent', () => {
  test.each<[string, Step[], ReturnType<typeof silence>]>([
    ['the first look says nothing', [{ at: 0, version: '1' }], { certainMs: 0 }],
    [
      'for certain since the end of the read that first returned it',
      steady(0, 12_000, '1'),
      { certainMs: 11_900 },
    ],
    [
      'at most since the start of the last read that did not return it',
      [...steady(0, 2_000, '1'), ...steady(3_000, 13_000, '2')],
      { certainMs: 9_900, possibleMs: 11_000 },
    ],
    [
      'a lease that was not there at first is new',
      [{ at: 0 }, ...steady(1_000, 5_000, '1')],
      { certainMs: 3_900, possibleMs: 5_000 },
    ],
    [
      'a renewal begins anew',
      [...steady(0, 20_000, '1'), { at: 21_000, version: '2' }],
      { certainMs: 0, possibleMs: 1_000 },
    ],
    [
      'a read that failed makes blind, and the next begins anew',
      [...steady(0, 9_000, '1'), { at: 10_000, failed: true }, ...steady(11_000, 15_000, '1')],
      { certainMs: 3_900 },
    ],
    [
      'so does one that was slow',
      [...steady(0, 9_000, '1'), { at: 10_000, took: 1_501, version: '1' }, ...steady(12_000, 15_000, '1')],
      { certainMs: 15_000 - 11_501 },
    ],
    [
      'one that took 1.5 s does not',
      [...steady(0, 9_000, '1'), { at: 10_000, took: 1_500, version: '1' }, ...steady(12_000, 15_000, '1')],
      { certainMs: 14_900 },
    ],
    [
      'a leader that slept for 20 s judges nothing from the gap',
      [...steady(0, 5_000, '1'), ...steady(25_000, 27_000, '1')],
      { certainMs: 1_900 },
    ],
    [
      'nor one that slept within a read',
      [...steady(0, 5_000, '1'), { at: 6_000, took: 20_000, version: '1' }, ...steady(27_000, 29_000, '1')],
      { certainMs: 3_000 },
    ],
    [
      'a gap of 3 s is none',
      [...steady(0, 5_000, '1'), ...steady(8_100, 11_100, '1')],
      { certainMs: 11_000 },
    ],
  ])('%s', (_, steps, expected) => {
    expect(silence(steps)).toEqual(expected)
  })

  test('while blind nothing is known', () => {
    expect(reads([...steady(0, 20_000, '1'), { at: 21_000, failed: true }])).toBeUndefined()
  })

  test('time that passes after the last read counts for nothing', () => {
    const known = reads(steady(0, 5_000, '1'))
    // Whoever plans from it may have slept for an hour since: there is no other time in it.
    expect(known && silenceOf(known.sights.get('a')!, known).certainMs).toBe(4_900)
  })

  test('a lease made anew is another one, whatever its version', () => {
    const first = watched(undefined, { startedAt: 0, endedAt: 1, leases: [lease('a', { uid: 'u1' })] })
    const again = watched(first, { startedAt: 1_000, endedAt: 1_001, leases: [lease('a', { uid: 'u2' })] })
    expect(again?.sights.get('a')?.since).toBe(1_001)
  })

  test("times that stand in the lease, and the leader's own lease, count for nothing", () => {
    const old = lease('a', {}, { renewTime: '1970-01-01T00:00:00.000000Z' })
    const leader = { ...old, metadata: { ...old.metadata, name: 'controller' } }
    const known = watched(undefined, { startedAt: 0, endedAt: 10, leases: [old, leader] })
    expect([...(known?.sights ?? [])].map(([name, sight]) => [name, sight.since])).toEqual([['a', 10]])
  })
})
