import { beforeEach, expect, test } from 'vitest'
import { EventCorrelator } from '../../src/store/event-correlator.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let clock: VirtualClock
let correlator: EventCorrelator
const minute = 60_000

beforeEach(() => {
  clock = new VirtualClock()
  correlator = new EventCorrelator(clock)
})

function tell(message: string, change: { about?: string; type?: string; reason?: string } = {}) {
  return correlator.correlate({ about: 'vm 1', type: 'Warning', reason: 'Crashed', message, ...change })
}

const shown = (told: ReturnType<typeof tell>) => (told.spam ? 'spam' : told.message)

test('from the tenth in a row that differs in its message, similar ones are combined under one key', () => {
  const first = Array.from({ length: 9 }, (_, i) => tell(`died of ${i}`))
  expect(first.map(shown)).toEqual(Array.from({ length: 9 }, (_, i) => `died of ${i}`))
  const tenth = tell('died of 9')
  const eleventh = tell('died of 10')
  expect(shown(tenth)).toBe('(combined from similar events): died of 9')
  expect(tenth).toMatchObject({ key: (eleventh as { key: string }).key })
  expect(new Set([...first, tenth].map((one) => (one as { key: string }).key)).size).toBe(10)
})

test('the same message again is the same event, however often', () => {
  const all = Array.from({ length: 20 }, () => tell('again'))
  expect(new Set(all.map(shown))).toEqual(new Set(['again']))
})

test('other objects, types and reasons are not similar', () => {
  for (let i = 0; i < 9; i += 1) tell(`m${i}`)
  expect(shown(tell('m9', { about: 'vm 2' }))).toBe('m9')
  expect(shown(tell('m9', { type: 'Normal' }))).toBe('m9')
  expect(shown(tell('m9', { reason: 'Killed' }))).toBe('m9')
})

test('ten minutes after the last of them nothing is combined any more; a moment before it is', async () => {
  for (let i = 0; i < 10; i += 1) tell(`m${i}`)
  await clock.advance(10 * minute)
  expect(shown(tell('m10'))).toContain('combined')
  await clock.advance(10 * minute + 1)
  expect(shown(tell('m11'))).toBe('m11')
})

test('an object tells 25 at once, then one in five minutes; others have their own', async () => {
  const told = Array.from({ length: 40 }, () => shown(tell('again')))
  expect(told.filter((one) => one === 'again')).toHaveLength(25)
  expect(told.slice(25)).toEqual(Array(15).fill('spam'))
  expect(shown(tell('again', { about: 'vm 2' }))).toBe('again')
  await clock.advance(5 * minute - 1)
  expect(shown(tell('again'))).toBe('spam')
  await clock.advance(1)
  expect(shown(tell('again'))).toBe('again')
  expect(shown(tell('again'))).toBe('spam')
})

test('what was not written is counted with the next that is', async () => {
  for (let i = 0; i < 30; i += 1) tell('again')
  await clock.advance(5 * minute)
  expect(tell('again')).toMatchObject({ occurrences: 6 })
  await clock.advance(5 * minute)
  expect(tell('again')).toMatchObject({ occurrences: 1 })
})

test('objects that were not heard of for long are forgotten: memory is bounded', () => {
  for (let i = 0; i < 25; i += 1) tell('again')
  expect(shown(tell('again'))).toBe('spam')
  for (let i = 0; i < 4_096; i += 1) tell('again', { about: `other ${i}` })
  expect(shown(tell('again'))).toBe('again')
})
