import { beforeEach, expect, test } from 'vitest'
import { ApiError } from '../../../src/store/errors.ts'
import { machine } from './fixture.ts'
import { Lab } from './lab.ts'

let lab: Lab

beforeEach(async () => {
  lab = new Lab()
  await lab.hosts({ mode: 'guard' })
})

async function series(name: string): Promise<Record<string, number>> {
  const lines = (await lab.meter.text()).split('\n').filter((line) => new RegExp(`^${name}[ {]`).test(line))
  return Object.fromEntries(
    lines.map((line) => [/\{(.*)\}/.exec(line)?.[1] ?? '', Number(line.slice(line.lastIndexOf(' ')))]),
  )
}

const failover = { recovery: { onHostLoss: 'Failover' } }

test('renewals are counted and silence is told for each host, whoever leads', async () => {
  lab.begin()
  await lab.pass(31)
  const renewals = await series('plasmavmc_host_lease_renewals_total')
  expect(Object.keys(renewals)).toEqual(['host="a"', 'host="b"', 'host="c"'])
  for (const count of Object.values(renewals)) expect(count).toBeGreaterThanOrEqual(9)
  for (const count of Object.values(renewals)) expect(count).toBeLessThanOrEqual(11)
  lab.alive.delete('a')
  await lab.pass(9)
  const silence = await series('plasmavmc_host_lease_silence_seconds')
  expect(silence['host="a"']).toBeGreaterThanOrEqual(6)
  expect(silence['host="b"']).toBeLessThanOrEqual(3)
})

test('a lost host is told, with its evidence and the machines that leave it, each once', async () => {
  await lab.add(machine('one', { spec: failover }))
  await lab.add(machine('two', { spec: failover }))
  await lab.add(machine('waits', { spec: { recovery: { onHostLoss: 'Manual' } } }))
  lab.begin()
  const end = lab.lead()
  await lab.pass(5)
  expect(await series('plasmavmc_brake_held')).toEqual({ '': 0 })
  expect(await series('plasmavmc_failovers_total')).toEqual({})
  lab.alive.delete('a')
  await lab.pass(40)
  expect(await series('plasmavmc_failovers_total')).toEqual({ 'reason="Fenced"': 2 })
  expect(await series('plasmavmc_fence_evidence_total')).toEqual({ 'proof="Guard"': 1 })
  expect(await series('plasmavmc_host_state')).toMatchObject({ 'host="a",state="Fenced"': 1 })
  expect(Object.keys(await series('plasmavmc_host_state'))).toHaveLength(3)
  await end()
  expect(await series('plasmavmc_host_state')).toEqual({})
})

test('the brake is told while it is held, and no longer', async () => {
  lab.begin()
  lab.lead()
  await lab.pass(5)
  lab.alive.delete('a')
  lab.alive.delete('b')
  await lab.pass(20)
  expect(await series('plasmavmc_brake_held')).toEqual({ '': 1 })
  expect(await series('plasmavmc_host_state')).toMatchObject({
    ...{ 'host="a",state="Lost"': 1, 'host="b",state="Lost"': 1 },
  })
  lab.alive.add('a')
  lab.alive.add('b')
  await lab.pass(10)
  expect(await series('plasmavmc_brake_held')).toEqual({ '': 0 })
})

test('steps that break are counted by what they were', async () => {
  lab.trouble = ({ call, kind }) =>
    call === 'create' && kind === 'FenceEvidence'
      ? new ApiError('ServiceUnavailable', 'no answer')
      : undefined
  lab.begin()
  lab.lead()
  await lab.pass(5)
  lab.alive.delete('a')
  await lab.pass(30)
  const failed = await series('plasmavmc_fence_steps_failed_total')
  expect(failed['step="storeEvidence"']).toBeGreaterThan(1)
  expect(await series('plasmavmc_fence_evidence_total')).toEqual({})
})
