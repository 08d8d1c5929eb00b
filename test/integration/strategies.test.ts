import { describe, expect } from 'vitest'
import type { RunStrategy } from '../../src/resources/vm.ts'
import { type Lab, test } from './lab.ts'

/** KubeVirt's meanings (user guide, "Run Strategies"): whether it comes up again by itself. */
const strategies: readonly (readonly [
  RunStrategy,
  { readonly shutdown: boolean; readonly failure: boolean },
])[] = [
  ['Always', { shutdown: true, failure: true }],
  ['RerunOnFailure', { shutdown: false, failure: true }],
  ['Once', { shutdown: false, failure: false }],
  ['Manual', { shutdown: false, failure: false }],
]

async function running(lab: Lab, strategy: RunStrategy) {
  const agent = lab.agent()
  await lab.create({ runStrategy: strategy })
  if (strategy === 'Manual') {
    await lab.untilPhase('Stopped', ({ reason }) => reason === 'NeverStarted')
    expect(lab.starts()).toBe(0)
    await lab.request('Start')
  }
  await lab.untilPhase('Running')
  return agent
}

/** Whatever makes it look again leaves it down: another pass, and another agent. */
async function staysDown(lab: Lab, phase: string): Promise<void> {
  const agent = lab.agent()
  await agent.passes(1)
  await lab.change({ terminationGracePeriodSeconds: 11 })
  await lab.until('looked at', (vm) => vm?.status?.observedGeneration === vm?.metadata.generation)
  await lab.untilPhase(phase)
  expect(lab.qemus()).toEqual([])
  expect(lab.starts()).toBe(1)
}

describe.for(strategies)('%s', ([strategy, comesUp]) => {
  test(`guest powers off: ${comesUp.shutdown ? 'up again' : 'stays down'}`, async ({ lab }) => {
    const agent = await running(lab, strategy)
    await lab.guest('poweroff')
    if (comesUp.shutdown) await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
    else await lab.untilPhase('Stopped')
    expect((await lab.status()).lastExit?.reason).toBe('GuestShutdown')
    expect(await lab.events()).toContain('Normal GuestShutdown')
    await agent.stop()
    if (!comesUp.shutdown) await staysDown(lab, 'Stopped')
  })

  test(`QEMU is killed: ${comesUp.failure ? 'up again' : 'stays down'}`, async ({ lab }) => {
    const agent = await running(lab, strategy)
    process.kill(lab.qemu().pid, 'SIGKILL')
    if (comesUp.failure) await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
    else await lab.untilPhase('Failed')
    expect((await lab.status()).lastExit?.reason).toBe('Killed')
    await agent.stop()
    if (!comesUp.failure) await staysDown(lab, 'Failed')
  })
})

describe('Halted', () => {
  test('never starts, and stops what runs; started again it runs', async ({ lab }) => {
    lab.agent()
    await lab.create({ runStrategy: 'Halted' })
    await lab.untilPhase('Stopped', ({ reason }) => reason === 'NeverStarted')
    expect(lab.starts()).toBe(0)
    await lab.change({ runStrategy: 'Always' })
    await lab.untilPhase('Running')
    await lab.change({ runStrategy: 'Halted' })
    const stopped = await lab.untilPhase('Stopped')
    expect(stopped.lastExit?.reason).toBe('Stopped')
    expect(stopped.process).toBeUndefined()
    expect(lab.commands()).toContain('system_powerdown')
    expect(lab.qemus()).toEqual([])
    await lab.change({ runStrategy: 'Always' })
    await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
  })
})

describe('requests', () => {
  test('a stop and a start of a machine that reruns on failure', async ({ lab }) => {
    await running(lab, 'RerunOnFailure')
    await lab.request('Stop')
    const stopped = await lab.untilPhase('Stopped')
    expect(stopped.lastExit?.reason).toBe('Stopped')
    await lab.request('Start')
    await lab.untilPhase('Running')
    expect(lab.starts()).toBe(2)
  })

  test('a restart is a new QEMU, whatever the strategy', async ({ lab }) => {
    await running(lab, 'Once')
    const { pid } = lab.qemu()
    await lab.request('Restart')
    const status = await lab.untilPhase(
      'Running',
      ({ process }) => process !== undefined && process.pid !== pid,
    )
    expect(status.restarts).toBe(1)
    expect(status.backoff).toBeUndefined()
  })

  test('pause holds over a restart of the agent, unpause ends it, on the same QEMU', async ({ lab }) => {
    const agent = await running(lab, 'Always')
    const { pid } = lab.qemu()
    await lab.request('Pause')
    await lab.untilPhase('Paused', ({ reason }) => reason === 'PausedByUser')
    await agent.stop()
    const next = lab.agent()
    await next.passes(2)
    expect((await lab.status()).phase).toBe('Paused')
    await lab.request('Unpause')
    await lab.untilPhase('Running')
    expect(lab.qemu().pid).toBe(pid)
  })

  test('a reset keeps the QEMU', async ({ lab }) => {
    await running(lab, 'Always')
    const { pid } = lab.qemu()
    await lab.request('Reset')
    await lab.untilTrue('reset', () => lab.commands().includes('system_reset') || undefined)
    await lab.until('the request is taken', (vm) => vm?.status?.request === undefined)
    expect((await lab.untilPhase('Running')).process?.pid).toBe(pid)
  })
})
