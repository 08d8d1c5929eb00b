import { afterAll, beforeAll, expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { figure } from './figures.ts'
import { Cluster, type Host } from './lab.ts'
import { beating, manual } from './machines.ts'

let cluster: Cluster

beforeAll(async () => {
  // Apart from the hosts, so that some of them can lose the store while it serves the others.
  cluster = await Cluster.start({ etcd: 'apart' })
  await cluster.watched()
})
afterAll(() => cluster?.close())

const cutFromStore = (host: Host) => cluster.network.cut(host.name, 'both', [cluster.etcdAddress])
const evidences = async () =>
  (await cluster.get<{ items: unknown[] }>('/apis/plasmavmc.io/v1alpha1/fenceevidences')).items.length
const alive = (uid: string) => cluster.qemus(uid).length

test('no host reaches the store for longer than any lease: no machine is stopped, and none is moved', async () => {
  for (const [i, host] of cluster.hosts.entries()) await cluster.createOn(host, beating(`beater-${i}`))
  const before = await cluster.vms()
  for (const vm of before) await cluster.beats(uidOf(vm), 1)
  for (const host of cluster.hosts) await cutFromStore(host)
  await Promise.all(before.map((vm) => cluster.beats(uidOf(vm), 15)))
  for (const host of cluster.hosts) await cluster.network.heal(host.name)
  const began = performance.now()
  for (const vm of before) {
    const on = [cluster.host(vm.status?.hostName)]
    expect(processOf(await cluster.running(vm.metadata.name, on))).toEqual(processOf(vm))
    expect(cluster.boots(uidOf(vm))).toBe(1)
  }
  await cluster.ready(...cluster.hosts)
  figure('store back for all: every machine Running', began)
  expect(await evidences()).toBe(0)
})

test('two of three hosts lose the store: their machines run on, and the third moves nothing', async () => {
  const [one, two, three] = cluster.hosts as [Host, Host, Host]
  const [kept] = await cluster.createOn(one, manual('kept'))
  const names = ['beater-0', 'beater-1']
  const before = await Promise.all(names.map((name) => cluster.vm(name)))
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
  await Promise.all(before.map((vm) => cluster.beats(uidOf(vm), 5)))
  for (const name of names) expect((await cluster.vm(name, [three])).status?.hostName).not.toBe(three.name)
  expect(alive(uidOf(kept!))).toBe(1)
  expect(await evidences()).toBe(0)
  await Promise.all([one, two].map(({ name }) => cluster.network.heal(name)))
  const began = performance.now()
  for (const vm of before) {
    const on = [cluster.host(vm.status?.hostName)]
    expect(processOf(await cluster.running(vm.metadata.name, on))).toEqual(processOf(vm))
    expect(cluster.boots(uidOf(vm))).toBe(1)
  }
  figure('store back for two of three: every machine Running', began)
  expect(processOf(await cluster.running('kept', [one]))).toEqual(processOf(kept!))
})

test('one host loses the store and the others do not: its machines run elsewhere', async () => {
  const host = await cluster.follower()
  const name = `beater-${cluster.hosts.indexOf(host)}`
  const uid = uidOf(await cluster.running(name, [host]))
  const began = performance.now()
  await cutFromStore(host)
  await cluster.running(name, cluster.others(host))
  figure('one host without the store: its machine runs on another', began)
  await cluster.network.heal(host.name)
  await cluster.beats(uid, 1)
  for (const vm of await cluster.vms()) {
    if (vm.metadata.name === 'kept') continue
    await cluster.patch(vm.metadata.name, { spec: { runStrategy: 'Halted' } })
    await cluster.sees(vm.metadata.name, 'is Stopped', ({ status }) => status?.phase === 'Stopped')
    await cluster.checkDisk(uidOf(vm))
  }
})
