import { expect, test } from 'vitest'
import type { Tenure } from '../../../src/host/ports.ts'
import type { VmStatus } from '../../../src/resources/vm.ts'
import { absent, alive, asked, machine, planOf, recorded, verbs } from './fixture.ts'

const held: Tenure = { state: 'held', epoch: 7, leftMs: 5_000 }
const lost: Tenure = { state: 'lost', why: 'not renewed for 6.2 s' }
const unknown = { state: 'unknown', why: 'no /proc' } as const

const adopted = (from: string, status: Partial<VmStatus> = {}) =>
  machine({}, status, { annotations: { 'plasmavmc.io/adopted-from': from } })

test('a machine without a host is taken up where its QEMU runs, and only while the lease is held', () => {
  const here = { hostName: 'host-a', placementEpoch: 7 }
  expect(planOf(machine(), alive(), { tenure: held }).status).toMatchObject(here)
  expect(planOf(machine(), alive(), { tenure: lost }).status.hostName).toBeUndefined()
})

test.each([absent, alive()])('a machine that was adopted from here is taken up here: $state', (fact) => {
  const { status } = planOf(adopted('host-a'), fact, { tenure: held })
  expect(status).toMatchObject({ hostName: 'host-a', placementEpoch: 7 })
})

test.each([
  ['from another host', adopted('host-b'), absent, held],
  ['while the lease is lost', adopted('host-a'), absent, lost],
  ['while it is not known whether it runs', adopted('host-a'), unknown, held],
  ['once it has had a host', adopted('host-a', { disksHost: 'host-a' }), absent, held],
] as const)('but not %s', (_what, vm, fact, tenure) => {
  expect(planOf(vm, fact, { tenure }).status.hostName).toBeUndefined()
})

test('a guest that is paused when it is taken over stays so until it is unpaused', () => {
  const first = planOf(adopted('lab'), alive('paused'))
  expect(first.status).toMatchObject({ pausedByUser: true, phase: 'Paused' })
  expect(verbs(first)).toEqual([])
  const told = first.happenings.find(({ reason }) => reason === 'Adopted')
  expect(told?.message).toContain('until it is unpaused')
  const vm = recorded(adopted('lab'), first)
  const asks = { ...vm, status: { ...first.status, ...asked('Unpause') } }
  expect(verbs(planOf(asks, alive('paused')))).toEqual(['resume'])
})

test('one that never ran is started, as its launch was asked for', () => {
  expect(verbs(planOf(adopted('lab'), alive('prelaunch')))).toEqual(['resume'])
})
