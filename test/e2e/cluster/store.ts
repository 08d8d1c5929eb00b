import { expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { startTimeOf } from '../proc.ts'
import { beating, manual, small } from './machines.ts'
import { cluster } from './shared.ts'

/** The live QEMUs of the lab, as pid and start time. */
const alive = () =>
  cluster
    .qemus()
    .map(({ pid, startTime }) => `${pid} ${startTime}`)
    .sort()

test('three hosts share a store: all are listed by each, and their machines run once', async () => {
  for (const host of cluster.hosts) {
    const names = (await cluster.hostObjects([host])).map(({ metadata }) => metadata.name)
    expect(names).toEqual(['h1', 'h2', 'h3'])
  }
  for (const manifest of [beating('a'), small('b'), manual('c')]) await cluster.create(manifest)
  for (const name of ['a', 'b', 'c']) {
    const vm = await cluster.running(name)
    const there = cluster.host(vm.status?.hostName).processes('qemu')
    expect(there.filter(({ argv }) => argv.includes(uidOf(vm)))).toHaveLength(1)
    expect(cluster.qemus(uidOf(vm))).toHaveLength(1)
  }
  await cluster.beats(uidOf(await cluster.vm('a')))
})

test('a server that is killed and started again keeps its QEMUs', async () => {
  const [before, qemus] = [await cluster.vms(), alive()]
  for (const host of cluster.hosts) {
    expect(host.signal('SIGKILL', 'server')).toBe(1)
    await cluster.until(`the server of ${host.name} is gone`, () => host.processes('server').length === 0)
    await host.serve()
    await cluster.ready(host)
  }
  for (const vm of before) {
    const after = await cluster.running(vm.metadata.name)
    expect(processOf(after)).toEqual(processOf(vm))
  }
  expect(alive()).toEqual(qemus)
})

test('with one member of etcd lost everything goes on', async () => {
  const [member] = cluster.etcd.members
  const qemus = alive()
  await member?.kill()
  await cluster.create(small('d'))
  const { status } = await cluster.running('d')
  await cluster.remove('d')
  await cluster.until('d is gone', async () =>
    (await cluster.vms()).every(({ metadata }) => metadata.name !== 'd'),
  )
  expect(status?.hostName).toMatch(/^h[123]$/)
  expect(alive()).toEqual(qemus)
  await member?.start()
  await member?.serving()
})

test('with all of etcd stopped the API says why, no guest is touched, and all goes on when it is back', async () => {
  const [before, qemus] = [await cluster.vms(), alive()]
  const a = uidOf(await cluster.vm('a'))
  for (const member of cluster.etcd.members) member.signal('SIGSTOP')
  const refused = cluster.hosts.map((host) => {
    const answer = host.client.json('GET', '/apis/plasmavmc.io/v1alpha1/hosts', { timeoutMs: 30_000 })
    return expect(answer).rejects.toMatchObject({
      code: 'ServiceUnavailable',
      message: expect.stringMatching(/etcd can't be read/),
    })
  })
  await Promise.all(refused)
  // Longer than any lease.
  await cluster.beats(a, 15)
  await cluster.etcd.kill()
  await cluster.beats(a, 2)
  expect(alive()).toEqual(qemus)
  await cluster.etcd.start()
  await cluster.etcd.serving()
  await cluster.until('the store can be written', () => cluster.create(small('e')))
  await cluster.running('e')
  for (const vm of before) {
    expect(processOf(await cluster.running(vm.metadata.name))).toEqual(processOf(vm))
    const [qemu] = cluster.qemus(uidOf(vm))
    expect(startTimeOf(qemu!.pid)).toBe(processOf(vm).startTime)
  }
  await cluster.ready(...cluster.hosts)
})

test('what the guest said was written is on its disk', () => cluster.checkHalted('a'))
