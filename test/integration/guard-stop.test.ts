import { afterEach, beforeEach, expect, test } from 'vitest'
import { guardFlags } from '../../src/wire-guard-settings.ts'
import { exited, GuardLab, quick, until } from './guard-lab.ts'

let lab: GuardLab
beforeEach(async () => {
  lab = await GuardLab.start()
})
afterEach(() => lab.close())

test('told to stop it goes on while a failover-enabled machine runs, then gives the lease up', async () => {
  const host = await lab.host('a', quick)
  const child = host.spawnGuard(guardFlags(host.config))
  await host.holds()
  const machine = await host.launch('Failover')
  child.kill('SIGTERM')
  await until('it says why it goes on', () =>
    host.log().includes('told to stop, but failover-enabled machines run'),
  )
  const before = (await host.holds()).sentAt ?? 0
  await until('it renews', () => (host.guard?.sentAt ?? 0) > before + 1_000)
  expect(host.lives(machine)).toBe(true)
  process.kill(machine.pid, 'SIGKILL')
  expect(await exited(child)).toBe(0)
  expect((await host.lease()).spec.holderIdentity).toBeUndefined()
  expect(host.record).toMatchObject({ held: false })
})

test('only one guard runs for a run directory; another one says which', async () => {
  const host = await lab.host('a', quick)
  const first = host.spawnGuard(guardFlags(host.config))
  await host.holds()
  const second = host.spawnGuard(guardFlags(host.config))
  expect(await exited(second)).toBe(1)
  expect(host.log()).toMatch(new RegExp(`guard is in use by the process ${first.pid}`))
})

test('a host by a name that another has registered does not touch its lease', async () => {
  const host = await lab.host('a', quick)
  host.spawnGuard([...guardFlags(host.config), '--data-dir', `${lab.root}/third`])
  await until('it says why', () => host.guard?.why === 'the name a is that of another host')
  await expect(host.lease()).rejects.toThrow('not found')
})
