import { expect, test } from 'vitest'
import { macOf } from '../../../src/host/qemu-networks.ts'
import { absent, alive, condition, machine, planOf, record, runningMachine, spec, uid } from './fixture.ts'

const networks = [{ name: 'nat' }, { name: 'lan', bridge: { name: 'br0' }, mac: '52:54:00:00:00:01' }]

test('networks are shown with their addresses, given or derived', () => {
  const next = planOf(machine({ networks }), absent)
  expect(next.status.networks).toEqual([
    { name: 'nat', mac: macOf(uid, 'nat') },
    { name: 'lan', mac: '52:54:00:00:00:01' },
  ])
})

test('a running machine shows the networks it runs with', () => {
  const running = alive('running', { record: record(spec({ networks: [{ name: 'old' }] })) })
  expect(planOf(runningMachine({ networks }), running).status.networks).toEqual([
    { name: 'old', mac: macOf(uid, 'old') },
  ])
})

test('the version of QEMU is that of the launch', () => {
  const next = planOf(machine(), alive('prelaunch', { record: record(spec()) }))
  expect(next.status.process).toMatchObject({ qemuVersion: '7.2.0', accelerator: 'tcg', launchId: 'l-1' })
  const other = planOf(machine(), alive('prelaunch', { record: { ...record(spec()), launchId: 'l-0' } }))
  expect(other.status.process, 'another launch’s record tells nothing').toMatchObject({
    accelerator: 'unknown',
  })
  expect(other.status.process?.qemuVersion).toBeUndefined()
})

test('conditions say what holds and what does not, every time', () => {
  const types = ['Ready', 'Paused', 'DisksReady', 'RestartRequired']
  const facts = [absent, alive(), alive('paused'), { state: 'unknown', why: '' } as const]
  for (const fact of facts) {
    const next = planOf(runningMachine(), fact)
    for (const type of types) expect(condition(next, type), type).toBeDefined()
  }
})
