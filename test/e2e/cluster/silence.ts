import { beforeAll, expect, test } from 'vitest'
import { processOf, uidOf } from '../lab.ts'
import { figure } from './figures.ts'
import type { Host } from './lab.ts'
import { beating, small } from './machines.ts'
import { cluster } from './shared.ts'

let host: Host
let uid: string

beforeAll(async () => {
  host = await cluster.follower()
  const [beater] = await cluster.createOn(host, beating('beater'), small('quick'))
  uid = uidOf(beater!)
  await cluster.beats(uid, 1)
})

const epochOf = async () => (await cluster.hostLease(host)).spec.leaseTransitions

test('a QEMU that is killed is started again on its host', async () => {
  const before = await cluster.vm('quick')
  const [qemu] = cluster.qemus(uidOf(before))
  const began = performance.now()
  process.kill(qemu!.pid, 'SIGKILL')
  const after = await cluster.sees(
    ...(['quick', 'runs again'] as const),
    ({ status }) => status?.phase === 'Running' && status.process?.launchId !== processOf(before).launchId,
  )
  figure('QEMU killed: runs again', began)
  expect(after.status).toMatchObject({ hostName: host.name, lastExit: { reason: 'Killed' } })
})

test('a guard that is killed is replaced, and no machine is touched', async () => {
  const [before, epoch] = [await cluster.vms(), await epochOf()]
  const [guard] = host.processes('guard')
  const began = performance.now()
  expect(host.signal('SIGKILL', 'guard')).toBe(1)
  await cluster.until('another guard runs', () =>
    host.processes('guard').some(({ pid }) => pid !== guard?.pid),
  )
  figure('guard killed: another runs', began)
  await renewed()
  expect(await epochOf()).toBe(epoch)
  for (const vm of before) expect(processOf(await cluster.running(vm.metadata.name))).toEqual(processOf(vm))
})

/** Waits until the host has renewed its lease three times. */
async function renewed(): Promise<void> {
  const seen = new Set<string | undefined>()
  await cluster.until('the host renews its lease', async () => {
    seen.add((await cluster.hostLease(host)).spec.renewTime)
    return seen.size > 3
  })
}

test('a server that is killed for longer than a lease: the guard renews, nothing moves, all is adopted', async () => {
  const [before, epoch] = [await cluster.vms(), await epochOf()]
  expect(host.signal('SIGKILL', 'server')).toBe(1)
  await cluster.until('its lease says that the agent is silent', async () => {
    const annotations = (await cluster.hostLease(host)).metadata.annotations
    return annotations?.['plasmavmc.io/agent'] === 'silent'
  })
  await renewed()
  for (const vm of before) expect(cluster.qemus(uidOf(vm))).toHaveLength(1)
  await host.serve()
  await cluster.ready(host)
  for (const vm of before) {
    expect(processOf(await cluster.running(vm.metadata.name, [host]))).toEqual(processOf(vm))
  }
  expect(await epochOf()).toBe(epoch)
})

test('server and guard are stopped for longer than a lease and go on: the disk has one writer at a time', async () => {
  const before = await cluster.vm('beater')
  for (const vm of await cluster.vms()) {
    cluster.expectTwins(
      uidOf(vm),
      'without a watchdog nobody can stop a QEMU whose server and guard both hang',
    )
  }
  host.signal('SIGSTOP', 'server', 'guard')
  const lost = await cluster.sees(
    'beater',
    'is given to another host',
    ({ status }) => status?.hostName !== host.name,
  )
  expect(lost.status?.evidence).toBeDefined()
  // QEMU's own locks keep the second one off the disk while the first lives.
  expect(host.processes('qemu').some(({ argv }) => argv.includes(uid))).toBe(true)
  const began = performance.now()
  host.signal('SIGCONT', 'server', 'guard')
  await cluster.until('its old host stops it', () =>
    host.processes('qemu').every(({ argv }) => !argv.includes(uid)),
  )
  figure('server and guard go on: the stray is stopped', began)
  const after = await cluster.running('beater', cluster.others(host))
  expect(processOf(after).launchId).not.toBe(processOf(before).launchId)
  await cluster.beats(uid, 1)
  await cluster.checkHalted('beater')
})
