import { resolve } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { spawnGuard } from '../../src/host/guard-process.ts'
import { silentLog } from '../../src/lib/log.ts'
import { guardFlags } from '../../src/wire-guard-settings.ts'
import { startGuard } from '../../src/wire-guard-watch.ts'
import { type GuardHost, GuardLab, patient, program, quick, until } from './guard-lab.ts'

let lab: GuardLab
let agents: { stop(): Promise<void> }[]
beforeEach(async () => {
  agents = []
  lab = await GuardLab.start()
})
afterEach(async () => {
  for (const agent of agents) await agent.stop()
  await lab.close()
})

/** What the agent does about its guard. */
function agent({ config }: GuardHost, command: readonly string[] = program) {
  const stopping = new AbortController()
  const { tenure, stopped } = startGuard(config, silentLog, stopping.signal, command)
  const stop = () => {
    stopping.abort()
    return stopped
  }
  agents.push({ stop })
  return { tenure, stop }
}

test('a guard that is killed is replaced, under the same epoch; one outlives its agent', async () => {
  const host = await lab.host('a', patient)
  const first = agent(host)
  const { pid } = await host.holds()
  expect(first.tenure()).toMatchObject({ state: 'held', epoch: 1 })
  const machine = await host.launch('Failover')
  process.kill(pid, 'SIGKILL')
  await until('there is another guard', () => host.guard !== undefined && host.guard.pid !== pid)
  const second = await host.holds()
  expect(second).toMatchObject({ epoch: 1, fencing: false })
  expect(host.lives(machine)).toBe(true)
  await first.stop()
  await until('it renews on', () => (host.guard?.sentAt ?? 0) > second.sentAt! + 3_000)
  await until('it notes that the agent is silent', async () => {
    const { metadata } = await host.lease()
    return metadata.annotations?.['plasmavmc.io/agent'] === 'silent'
  })
  expect(host.guard?.pid).toBe(second.pid)
  expect(host.lives(machine)).toBe(true)
})

test('a guard of another program is replaced; the lease stays', async () => {
  const host = await lab.host('a', patient)
  host.spawnGuard([...guardFlags(host.config), '--log-level', 'debug'])
  const { pid } = await host.holds()
  const machine = await host.launch('Failover')
  const { tenure } = agent(host)
  await until('another guard runs', () => host.guard !== undefined && host.guard.pid !== pid)
  expect(tenure()).toMatchObject({ state: 'held', epoch: 1 })
  expect((await host.lease()).spec.leaseTransitions).toBe(1)
  expect(host.lives(machine)).toBe(true)
})

test('a guard that hangs where none can be started: the agent stops the machines in time', async () => {
  const host = await lab.host('a', quick)
  const child = host.spawnGuard(guardFlags(host.config))
  await host.holds()
  const [failover, manual] = [await host.launch('Failover'), await host.launch('Manual')]
  const { tenure } = agent(host, ['/bin/false'])
  await until('it is held', () => tenure().state === 'held')
  child.kill('SIGSTOP')
  await until('the machine is gone', () => !host.lives(failover))
  expect(tenure()).toMatchObject({ state: 'lost' })
  expect(host.lives(manual)).toBe(true)
  child.kill('SIGCONT')
  await until('it is held again', () => tenure().state === 'held')
})

test('a guard that hangs is replaced where that can be done', async () => {
  const host = await lab.host('a', patient)
  const child = host.spawnGuard(guardFlags(host.config))
  const { pid } = await host.holds()
  const machine = await host.launch('Failover')
  child.kill('SIGSTOP')
  agent(host)
  await until('another guard runs', () => host.guard !== undefined && host.guard.pid !== pid)
  expect(await host.holds()).toMatchObject({ epoch: 1 })
  expect(host.lives(machine)).toBe(true)
})

test('the guard that a server starts is the same without the rest of the program', async () => {
  const host = await lab.host('a', patient)
  const entry = [...program.slice(0, -1), resolve('src/wire-guard-entry.ts')]
  const first = agent(host, entry)
  const { pid, program: name } = await host.holds()
  await first.stop()
  // Of the same version, told the same: whoever comes next lets it be.
  agent(host)
  const { sentAt = 0 } = host.guard!
  await until('it renews on', () => (host.guard?.sentAt ?? 0) > sentAt + 2_000)
  expect(host.guard).toMatchObject({ pid, program: name })
  process.kill(pid, 'SIGTERM')
  await until('it gives its lease up', async () => (await host.lease()).spec.holderIdentity === undefined)
})

test('a guard that is told what it does not know says so, in the words that its agent logs', async () => {
  const host = await lab.host('a', patient)
  const entry = [...program.slice(0, -1), resolve('src/wire-guard-entry.ts')]
  const { ended } = await spawnGuard(host.config.runDir, [...entry, 'guard', '--brake', '10'])
  expect(await ended).toMatch(/^exit code 1: error: --brake: is no flag/)
})
