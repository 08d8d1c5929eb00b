import { expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { beater, beaterOnFollower } from './beater.ts'
import { figure } from './figures.ts'
import type { Host } from './lab.ts'
import { manual, small } from './machines.ts'
import { cluster } from './shared.ts'

const cutFromStore = (host: Host) => cluster.network.cut(host.name, 'both', [cluster.etcdAddress])
const evidences = async () =>
  (await cluster.get<{ items: unknown[] }>('/apis/plasmavmc.io/v1alpha1/fenceevidences')).items.length
const alive = (uid: string) => cluster.qemus(uid).length

test('no host reaches the store for longer than any lease: no machine is stopped, and none is moved', async () => {
  const { uid, host: beats } = await beaterOnFollower()
  for (const host of cluster.others(beats)) await cluster.createOn(host, small(`small-${host.name}`))
  const before = await cluster.vms()
  expect(before.map(({ status }) => status?.onHostLoss)).toEqual(['Failover', 'Failover', 'Failover'])
  for (const host of cluster.hosts) await cutFromStore(host)
  await cluster.beats(uid, 15)
  for (const vm of before) expect(alive(uidOf(vm))).toBe(1)
  for (const host of cluster.hosts) await cluster.network.heal(host.name)
  const began = performance.now()
  for (const vm of before) {
    const on = [cluster.host(vm.status?.hostName)]
    expect(processOf(await cluster.running(vm.metadata.name, on))).toEqual(processOf(vm))
  }
  expect(cluster.boots(uid)).toBe(1)
  await cluster.ready(...cluster.hosts)
  figure('store back for all: every machine Running', began)
  expect(await evidences()).toBe(0)
})

test('two of three hosts lose the store: their machines run on, and the third moves nothing', async () => {
  const [one, two, three] = cluster.hosts as [Host, Host, Host]
  const before = (await cluster.vms()).filter(({ status }) => status?.hostName !== three.name)
  expect(before).toHaveLength(2)
  const uid = uidOf(await cluster.vm(beater))
  const [kept] = await cluster.createOn(one, manual('kept'))
  await Promise.all([cutFromStore(one), cutFromStore(two)])
  await cluster.until('the leader says why it moves nothing', async () => {
    const hosts = (await cluster.hostObjects([three])).filter(({ metadata }) => metadata.name !== three.name)
    return hosts.every(({ status }) =>
      status?.conditions.some(
        ({ type, reason = '' }) => type === 'Fenced' && /^(BrakeHeld|VoteRefused)$/.test(reason),
      ),
    )
  })
  // By then a lease was silent for longer than it takes to lose it.
  await cluster.beats(uid, 5)
  for (const { metadata } of before)
    expect((await cluster.vm(metadata.name, [three])).status?.hostName).not.toBe(three.name)
  for (const vm of [...before, kept!]) expect(alive(uidOf(vm))).toBe(1)
  expect(await evidences()).toBe(0)
  await Promise.all([one, two].map(({ name }) => cluster.network.heal(name)))
  const began = performance.now()
  for (const vm of before) {
    const on = [cluster.host(vm.status?.hostName)]
    expect(processOf(await cluster.running(vm.metadata.name, on))).toEqual(processOf(vm))
  }
  expect(cluster.boots(uid)).toBe(1)
  figure('store back for two of three: every machine Running', began)
  expect(processOf(await cluster.running('kept', [one]))).toEqual(processOf(kept!))
})

test('one host loses the store and the others do not: its machines run elsewhere', async () => {
  const { uid, host } = await beaterOnFollower()
  const began = performance.now()
  await cutFromStore(host)
  await cluster.running(beater, cluster.others(host))
  figure('one host without the store: its machine runs on another', began)
  await cluster.network.heal(host.name)
  await cluster.beats(uid, 1)
  await cluster.checkHalted(beater)
})
