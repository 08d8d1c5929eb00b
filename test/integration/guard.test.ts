import { afterEach, beforeEach, expect, test } from 'vitest'
import { hostClock } from '../../src/host/guard-clock.ts'
import { fencedHolder } from '../../src/resources/host-lease.ts'
import { takeOver } from '../../src/runtime/lease.ts'
import { guardFlags } from '../../src/wire-guard-settings.ts'
import { GuardLab, patient, quick, until } from './guard-lab.ts'

let lab: GuardLab
beforeEach(async () => {
  lab = await GuardLab.start()
})
afterEach(() => lab.close())

test('cut off from the store, alone, failover-enabled machines are dead before others may start them; others run on', async () => {
  await lab.addSilent('b', 'c')
  const host = await lab.host('a')
  host.spawnGuard(guardFlags(host.config))
  await host.holds()
  await until('it knows the others', () => host.guard?.promises[0]?.members.join() === 'a,b,c')
  const [failover, manual] = [await host.launch('Failover'), await host.launch('Manual')]
  await lab.stopEtcd()
  await until('the machine is gone', () => !host.lives(failover))
  const { sentAt = 0 } = host.record ?? {}
  expect(hostClock.elapsed() - sentAt).toBeLessThan(10_000)
  await until('it says so', () => host.guard?.fencing === true && host.guard.held === false)
  expect(host.lives(manual)).toBe(true)

  const late = await host.launch('Failover')
  await until('one that appears later is gone too', () => !host.lives(late))
  await lab.startEtcd()
  const { epoch } = await host.holds()
  expect(epoch).toBe(1)
  expect(host.lives(manual)).toBe(true)
})

test('a guard whose lease was taken stops its machines first, then takes it back under the new epoch', async () => {
  const host = await lab.host('a', quick)
  const child = host.spawnGuard(guardFlags(host.config))
  await host.holds()
  const [failover, manual] = [await host.launch('Failover'), await host.launch('Manual')]
  child.kill('SIGSTOP')
  const taken = await takeOver(await host.lease(), {
    ...{
      objects: lab.objects,
      clock: hostClock,
      terms: { durationMs: 5_000 },
      silentMs: 5_000,
      neededMs: 5_000,
    },
  })
  expect(taken?.spec).toMatchObject({ holderIdentity: fencedHolder, leaseTransitions: 2 })
  child.kill('SIGCONT')
  await until('the lease is its own again', async () => {
    const { spec } = await host.lease()
    if (spec.holderIdentity === fencedHolder) return false
    expect(host.lives(failover)).toBe(false)
    return true
  })
  expect(await host.holds()).toMatchObject({ epoch: 2, fencing: false })
  expect(host.lives(manual)).toBe(true)
})

test('a guard that a service manager keeps takes the place of the server’s, told the same, and of no other', async () => {
  const host = await lab.host('a', patient)
  host.spawnGuard(guardFlags(host.config))
  const first = await host.holds()
  const machine = await host.launch('Failover')
  const waits = () => host.log().split('waiting for the guard that runs').length - 1
  const renewsStill = async (pid: number | undefined) => {
    const { sentAt = 0 } = host.guard!
    await until('it goes on', () => (host.guard?.sentAt ?? 0) > sentAt + 2_500)
    expect(host.guard?.pid).toBe(pid)
  }
  const other = host.spawnGuard([...guardFlags(host.config), '--lease-renew', '0.9', '--wait'])
  await until('one told something else waits', () => waits() === 1)
  await renewsStill(first.pid)
  other.kill('SIGKILL')

  const kept = [...guardFlags(host.config), '--wait']
  const ours = host.spawnGuard(kept)
  await until('it took its place', () => host.guard?.pid === ours.pid)
  const { epoch } = await host.holds()
  expect([epoch, host.lives(machine)]).toEqual([first.epoch, true])
  host.spawnGuard(kept)
  await until('one like itself waits', () => waits() === 2)
  await renewsStill(ours.pid)
})
