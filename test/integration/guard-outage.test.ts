import { afterEach, beforeEach, expect, test } from 'vitest'
import { hostClock } from '../../src/host/guard-clock.ts'
import { guardFlags } from '../../src/wire-guard-settings.ts'
import { GuardLab, until } from './guard-lab.ts'

let lab: GuardLab
beforeEach(async () => {
  lab = await GuardLab.start()
})
afterEach(() => lab.close())

test('an outage of etcd stops nothing while the guards reach each other', async () => {
  const hosts = await Promise.all(
    ['a', 'b', 'c'].map((name) =>
      lab.host(name, { leaseDuration: '8', leaseRenew: '1', leaseDeadline: '4' }),
    ),
  )
  for (const host of hosts) host.spawnGuard(guardFlags(host.config))
  for (const host of hosts) await host.holds()
  const all = () => hosts.every(({ guard }) => guard?.promises.every(({ members }) => members.length === 3))
  await until('all know each other', all)
  // Before that they say nothing: the guard before them might have said the opposite.
  const young = hostClock.elapsed()
  await until('they may speak', () => hosts.every(({ guard }) => (guard?.aliveAt ?? 0) > young + 5_000))
  const machines = await Promise.all(hosts.map((host) => host.launch('Failover')))
  await lab.stopEtcd()
  const before = hosts.map(({ record }) => record?.sentAt ?? 0)
  const long = () => hosts.every(({ guard }, i) => (guard?.aliveAt ?? 0) > before[i]! + 8_000)
  await until('the outage is longer than any lease', long)
  expect(hosts.map((host, i) => host.lives(machines[i]!))).toEqual([true, true, true])
  expect(hosts.map(({ guard }) => [guard?.held, guard?.fencing, guard?.why])).toEqual(
    Array(3).fill([false, false, expect.stringContaining('other hosts have lost it too')]),
  )
  await lab.startEtcd()
  for (const host of hosts) expect((await host.holds()).epoch).toBe(1)
  expect(hosts.map((host, i) => host.lives(machines[i]!))).toEqual([true, true, true])
})
