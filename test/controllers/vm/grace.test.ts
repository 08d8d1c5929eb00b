import { expect, test } from 'vitest'
import type { VmStatus } from '../../../src/resources/vm.ts'
import { alive, planOf, recorded, runningMachine, time, verbs } from './fixture.ts'

const stop = { why: 'Stop', at: time(), graceSeconds: 30 }
const power: VmStatus['power'] = { strategy: 'Manual', desired: 'Down' }

/** A machine that is powering down since a stop of 30 s, and is now declared with another grace period. */
const going = (terminationGracePeriodSeconds: number) =>
  runningMachine({ runStrategy: 'Manual', terminationGracePeriodSeconds }, { stop, power })

test('a grace period that is made shorter counts at once, and is told once', () => {
  const next = planOf(going(5), alive(), { stopElapsedMs: 6_000 })
  expect(next.status.stop).toEqual({ ...stop, graceSeconds: 5 })
  expect(verbs(next)).toEqual(['quit'])
  expect(next.happenings.map(({ message }) => message)).toEqual(['Stop: the guest may now take 5 s in all'])
  expect(planOf(recorded(going(5), next), alive(), { stopElapsedMs: 7_000 }).happenings).toEqual([])
})

test('a longer one is for the next stop', () => {
  expect(verbs(planOf(going(600), alive(), { stopElapsedMs: 31_000 }))).toEqual(['quit'])
})
