import { expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { sparingLeader } from './beater.ts'
import { figure } from './figures.ts'
import type { Host } from './lab.ts'
import { beating, manual, small } from './machines.ts'
import { cluster } from './shared.ts'

let lost: Host

test('a host loses its power: its machines run on others, on stored evidence; those that wait for it wait', async () => {
  lost = await cluster.follower()
  await cluster.createOn(lost, beating('beater'), small('quick'), manual('waits'))
  const before = await cluster.vm('beater')
  const uid = uidOf(before)
  await cluster.beats(uid, 2)
  const began = performance.now()
  const [quick, after] = await sparingLeader(async () => {
    await lost.powerOff()
    const first = await cluster.running('quick', cluster.others(lost))
    figure('host lost: a machine runs on another host', began)
    return [first, await cluster.running('beater', cluster.others(lost))] as const
  })
  await cluster.beats(uid, 1)
  figure('host lost: a Linux guest writes to its disk on another host', began)
  expect(cluster.boots(uid)).toBe(2)
  expect(after.status?.lastExit).toMatchObject({ reason: 'HostLost', launchId: processOf(before).launchId })
  const { spec } = await cluster.evidence(after.status?.evidence ?? '')
  const lease = await cluster.hostLease(lost)
  expect(spec).toMatchObject({ host: lost.name, proof: 'Guard', epoch: lease.spec.leaseTransitions })
  expect(spec.votes.toSorted()).toEqual(cluster.others(lost).map(({ name }) => name))
  expect(spec.silentMs).toBeGreaterThan(spec.neededMs ?? Infinity)
  expect(before.status?.placementEpoch).toBeLessThan(spec.epoch)
  expect(quick.status?.evidence).toBe(after.status?.evidence)
  const waits = await cluster.vm('waits')
  expect(waits.status).toMatchObject({ phase: 'Unknown', reason: 'HostLost', hostName: lost.name })
  expect(cluster.qemus(uidOf(waits))).toEqual([])
})

test('the host is back after a boot: what waited for it runs again, what was moved stays moved', async () => {
  const began = performance.now()
  const moved = processOf(await cluster.vm('beater'))
  await lost.boot()
  await lost.serve()
  // Its host says first that it does not run any more; then it may run there, or wherever there is room.
  const waits = await cluster.running('waits')
  figure('host back: a machine that waited runs', began)
  expect(waits.status?.lastExit?.reason).toBe('HostReboot')
  await cluster.until('it counts as Ready', async () => {
    const found = (await cluster.hostObjects()).find(({ metadata }) => metadata.name === lost.name)
    return found?.status?.conditions.some(({ type, status }) => type === 'Ready' && status === 'True')
  })
  expect(processOf(await cluster.vm('beater'))).toEqual(moved)
  const uid = uidOf(await cluster.vm('beater'))
  expect(lost.processes('qemu').filter(({ argv }) => argv.includes(uid))).toEqual([])
})

test('a host whose server and guard come back in time keeps its machines: a short reboot is no loss', async () => {
  const before = await cluster.vm('beater')
  const host = cluster.host(before.status?.hostName)
  const began = performance.now()
  const after = await sparingLeader(async () => {
    await host.powerOff()
    await host.boot()
    await host.serve()
    return cluster.sees(
      ...(['beater', 'runs again'] as const),
      ({ status }) => status?.phase === 'Running' && status.process?.launchId !== processOf(before).launchId,
    )
  })
  figure('host rebooted: its machine runs again', began)
  expect(after.status?.lastExit?.reason).toMatch(/^Host(Reboot|Lost)$/)
  await cluster.beats(uidOf(after), 1)
  for (const name of ['quick', 'waits']) await cluster.remove(name)
})
