import { beforeAll, expect, test } from 'vitest'
import { processOf } from '../lab.ts'
import { beaterOnFollower } from './beater.ts'
import { figure } from './figures.ts'
import type { Host } from './lab.ts'
import { small } from './machines.ts'
import { cluster } from './shared.ts'

beforeAll(async () => {
  for (const name of ['a', 'b', 'c']) await cluster.create(small(name))
  for (const name of ['a', 'b', 'c']) await cluster.running(name)
})

const termOf = async () => (await cluster.lease('controller')).spec.leaseTransitions ?? -1

/** Waits until another host leads than this one. @returns it */
const anotherThan = (host: Host) =>
  cluster.until(`another leads than ${host.name}`, async () => {
    const leader = await cluster.leader()
    return leader === host ? undefined : leader
  })

test('a leader that was stopped goes on when another has led, and what it writes late changes nothing', async () => {
  const { uid, host: other, boots } = await beaterOnFollower()
  const leader = await cluster.leader()
  // It sees the host lost, and is stopped before it can take its lease.
  await other.powerOff()
  await cluster.until('the leader sees that the lease is silent', async () => {
    const host = (await cluster.hostObjects()).find(({ metadata }) => metadata.name === other.name)
    return host?.status?.conditions.some(({ type, status }) => type === 'Ready' && status !== 'True')
  })
  leader.signal('SIGSTOP', 'server')
  const began = performance.now()
  const next = await anotherThan(leader)
  figure('leader stopped: another leads', began)
  const term = await termOf()
  const after = await cluster.running('beater', cluster.others(other))
  figure('leader and a host lost at once: the machine runs elsewhere', began)
  leader.signal('SIGCONT', 'server')
  await cluster.ready(leader)
  await cluster.beats(uid, 5)
  expect(await cluster.leader()).toBe(next)
  expect(await termOf()).toBe(term)
  expect(processOf(await cluster.vm('beater'))).toEqual(processOf(after))
  expect((await cluster.vm('beater')).status).toMatchObject({
    ...{ phase: 'Running', evidence: after.status?.evidence },
  })
  await other.boot()
  await other.serve()
  await cluster.ready(other)
  expect(cluster.boots(uid)).toBe(boots + 1)
})

test('the leader is killed: another leads, under a newer epoch, and no machine is touched', async () => {
  const names = (await cluster.vms()).map(({ metadata }) => metadata.name)
  const before = await Promise.all(names.map((name) => cluster.running(name)))
  const [term, leader] = [await termOf(), await cluster.leader()]
  const began = performance.now()
  leader.signal('SIGKILL', 'server')
  await anotherThan(leader)
  figure('leader killed: another leads', began)
  expect(await termOf()).toBeGreaterThan(term)
  // Until then its host counts as well, and a machine that is placed there waits for it.
  await cluster.until('the silence of its host is noticed', async () => {
    const hosts = await cluster.hostObjects(cluster.others(leader))
    const conditions = hosts.find(({ metadata }) => metadata.name === leader.name)?.status?.conditions
    return conditions?.some(({ type, status }) => type === 'Ready' && status !== 'True')
  })
  await cluster.create(small('d'))
  await cluster.running('d', cluster.others(leader))
  figure('leader killed: a new machine runs', began)
  await leader.serve()
  await cluster.ready(leader)
  for (const vm of before) expect(processOf(await cluster.running(vm.metadata.name))).toEqual(processOf(vm))
})
