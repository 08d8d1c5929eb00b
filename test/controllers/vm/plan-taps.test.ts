import { expect, test } from 'vitest'
import { alive, condition, planOf, recorded, runningMachine } from './fixture.ts'

const away = { network: 'lan', tap: 'vm1', message: 'lan: this host has no bridge br0' }
const back = { network: 'lan', tap: 'vm1', attach: 'br0', message: 'lan: vm1 is not on br0' }
const told = (next: ReturnType<typeof planOf>) => next.happenings.map(({ reason }) => reason)

test('a card whose bridge is gone is told of once; the machine runs on', () => {
  const next = planOf(runningMachine(), alive('running', { looseTaps: [away] }))
  expect(next.status.phase).toBe('Running')
  expect(condition(next, 'Synchronized')).toMatchObject({ status: 'False', reason: 'NetworkDetached' })
  expect(condition(next, 'Synchronized')?.message).toBe(away.message)
  expect([told(next), next.actions]).toEqual([['NetworkDetached'], []])
  const again = planOf(recorded(runningMachine(), next), alive('running', { looseTaps: [away] }))
  expect(told(again)).toEqual([])
})

test('it is put back once its bridge is there, and that is told', () => {
  const first = planOf(runningMachine(), alive('running', { looseTaps: [back] }))
  expect(first.actions).toEqual([{ do: 'attachTap', tap: 'vm1', bridge: 'br0' }])
  const next = planOf(recorded(runningMachine(), first), alive())
  expect(told(next)).toEqual(['NetworkAttached'])
  expect(condition(next, 'Synchronized')?.status).not.toBe('False')
})
