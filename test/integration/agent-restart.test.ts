import { rmSync } from 'node:fs'
import { describe, expect } from 'vitest'
import { restartDelayMs } from '../../src/controllers/vm/exits.ts'
import type { Processes } from '../../src/host/ports.ts'
import type { RunStrategy } from '../../src/resources/vm.ts'
import { BlindProcfs } from './blind-procfs.ts'
import { type Lab, test } from './lab.ts'

const never = new Promise<never>(() => {})

/** A Processes whose launch is another; all else is the real one's. */
function withLaunch(real: Processes, launch: Processes['launch']): Processes {
  return new Proxy(real, {
    get: (target, name) => {
      if (name === 'launch') return launch
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

async function runningWithoutAgent(lab: Lab, spec: Record<string, unknown> = {}) {
  const agent = lab.agent()
  await lab.create(spec)
  await lab.untilPhase('Running')
  await agent.stop()
  return lab.qemu()
}

/** Waits until a new agent has looked at the machine. */
async function looked(lab: Lab, options = {}) {
  const agent = lab.agent(options)
  await agent.passes(2)
  return agent
}

describe('the next agent', () => {
  test('finds the QEMU that runs, and does nothing to it', async ({ lab }) => {
    const { pid, startTime } = await runningWithoutAgent(lab)
    const before = await lab.get()
    const commands = lab.commands().length
    await looked(lab)
    expect(lab.qemu()).toMatchObject({ pid, startTime })
    expect((await lab.get())?.status).toEqual(before?.status)
    const since = new Set(lab.commands().slice(commands))
    expect(since).toEqual(new Set(['qmp_capabilities', 'query-status']))
    expect(lab.starts()).toBe(1)
  })

  test('takes over a QEMU of which the status tells nothing', async ({ lab }) => {
    const { pid, startTime, launchId } = await runningWithoutAgent(lab)
    await lab.setStatus(() => ({ restarts: 0, networks: [], disks: [], conditions: [] }))
    lab.agent()
    const status = await lab.untilPhase('Running')
    expect(status.process).toMatchObject({ pid, startTime, launchId, accelerator: 'tcg' })
    expect(await lab.events()).toContain('Normal Adopted')
    expect(lab.starts()).toBe(1)
  })

  test('finds the run directory wiped: the QEMU is left alone, none is started beside it', async ({
    lab,
  }) => {
    const { pid } = await runningWithoutAgent(lab)
    rmSync(`${lab.runDir}/vms`, { recursive: true })
    const agent = lab.agent()
    expect((await lab.untilPhase('Unresponsive')).process?.pid).toBe(pid)
    await agent.passes(2)
    expect(lab.qemu().pid).toBe(pid)
    expect(lab.starts()).toBe(1)
  })

  test.for([
    ['Always', 'Running'],
    ['RerunOnFailure', 'Running'],
    ['Once', 'Failed'],
  ] as const)('finds the QEMU gone: %s, so %s', async ([strategy, phase], { lab }) => {
    const { pid } = await runningWithoutAgent(lab, { runStrategy: strategy })
    process.kill(pid, 'SIGKILL')
    await lab.untilTrue('gone', () => lab.qemus().length === 0 || undefined)
    lab.agent()
    const status = await lab.untilPhase(phase, ({ lastExit }) => lastExit !== undefined)
    expect(status.lastExit).toMatchObject({
      reason: 'Crashed',
      message: expect.stringContaining('how it ended is not known'),
    })
    expect(lab.starts()).toBe(phase === 'Running' ? 2 : 1)
  })

  test('goes on with a stop where the last one left it', async ({ lab }) => {
    lab.script({ powerdown: 'ignore' })
    const first = lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    await lab.change({ runStrategy: 'Halted' })
    const { stop } = await lab.untilPhase('Stopping')
    await first.stop()
    await lab.skip(1_800)
    const second = await looked(lab)
    expect((await lab.status()).stop).toEqual(stop)
    expect(lab.commands()).not.toContain('quit')
    await lab.skip(1_801)
    await lab.untilPhase('Stopped')
    await second.passes(0)
  })

  test('keeps the back-off of a crash loop', async ({ lab }) => {
    lab.script({ exitCode: 1 })
    const first = lab.agent()
    await lab.create()
    for (let failures = 2; failures < 6; failures++) {
      await lab.untilPhase('CrashLoopBackOff', ({ backoff }) => backoff?.failures === failures)
      await lab.skip(restartDelayMs(failures) / 1_000 + 2)
    }
    const { backoff } = await lab.untilPhase('CrashLoopBackOff', (status) => status.backoff?.failures === 6)
    await first.stop()
    await lab.agent().passes(1)
    expect(await lab.status()).toMatchObject({ phase: 'CrashLoopBackOff', backoff })
    expect(lab.starts()).toBe(6)
  })
})

describe('an agent dies', () => {
  test('between the record and the fork: one QEMU afterwards', async ({ lab }) => {
    const asked = Promise.withResolvers<void>()
    const first = lab.agent({
      wrap: (real) =>
        withLaunch(real, () => {
          asked.resolve()
          return never
        }),
    })
    await lab.create()
    await asked.promise
    const { launch, process } = await lab.status()
    expect(process).toBeUndefined()
    expect(launch?.id).toBeDefined()
    await first.stop()
    expect(lab.starts()).toBe(0)
    lab.agent()
    const status = await lab.untilPhase('Running')
    expect(status.process?.launchId).toBe(lab.qemu().launchId)
    expect(status.launch).toBeUndefined()
    expect(lab.starts()).toBe(1)
  })

  test('between the fork and the record: that QEMU is taken over', async ({ lab }) => {
    const forked = Promise.withResolvers<void>()
    const first = lab.agent({
      wrap: (real) =>
        withLaunch(real, async (request) => {
          await real.launch(request)
          forked.resolve()
          return never
        }),
    })
    await lab.create()
    await forked.promise
    const { process, launch } = await lab.status()
    expect(process).toBeUndefined()
    await lab.untilTrue('it has its command line', () => lab.qemus().length === 1 || undefined)
    const { pid, launchId } = lab.qemu()
    expect(launch?.id).toBe(launchId)
    await first.stop()
    lab.agent()
    const status = await lab.untilPhase('Running')
    expect(status.process).toMatchObject({ pid, launchId })
    expect(status).toMatchObject({ restarts: 0 })
    expect(lab.starts()).toBe(1)
  })

  test('after the fork, before QEMU is itself: another agent at once starts no second one', async ({
    lab,
  }) => {
    const forked = Promise.withResolvers<void>()
    const first = lab.agent({
      wrap: (real) =>
        withLaunch(real, async (request) => {
          const launched = real.launch(request)
          forked.resolve()
          await launched
          return never
        }),
    })
    await lab.create()
    await forked.promise
    void first.stop()
    lab.agent()
    await lab.untilPhase('Running')
    expect(lab.qemus()).toHaveLength(1)
    expect(lab.starts()).toBe(1)
  })
})

describe('the host was rebooted', () => {
  test.for([
    ['Always', 'Running', 1],
    ['RerunOnFailure', 'Running', 1],
    ['Once', 'Failed', 0],
    ['Manual', 'Failed', 0],
  ] as const)('%s: %s', async ([runStrategy, phase, restarts], { lab }) => {
    const strategy: RunStrategy = runStrategy === 'Manual' ? 'Once' : runStrategy
    const { pid } = await runningWithoutAgent(lab, { runStrategy: strategy })
    if (runStrategy === 'Manual') {
      await lab.change({ runStrategy })
      await lab.setStatus((status) => ({ ...status, power: { strategy: 'Manual', desired: 'Up' } }))
    }
    process.kill(pid, 'SIGKILL')
    rmSync(`${lab.runDir}/vms`, { recursive: true })
    await lab.untilTrue('gone', () => lab.qemus().length === 0 || undefined)
    lab.agent({ proc: new BlindProcfs('another boot') })
    const status = await lab.untilPhase(phase, ({ lastExit }) => lastExit !== undefined)
    expect(status.lastExit?.reason).toBe('HostReboot')
    expect(status).toMatchObject({ restarts })
    // Nobody's fault: it counts for no back-off.
    expect(status.backoff).toBeUndefined()
    if (phase === 'Running') expect(status.process?.bootId).toBe('another boot')
    expect(lab.starts()).toBe(1 + restarts)
  })
})
