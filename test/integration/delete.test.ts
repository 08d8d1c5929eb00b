import { existsSync } from 'node:fs'
import { expect } from 'vitest'
import { tellFake } from '../fakes/control.ts'
import type { TestAgent } from './agent.ts'
import { BlindProcfs } from './blind-procfs.ts'
import { answersWithin, graceSeconds, type Lab, test } from './lab.ts'

interface Case {
  /** Brings the machine there. */
  readonly reach: (lab: Lab) => Promise<TestAgent>
  /** What must happen after the deletion was asked for, so that it can end. */
  readonly end?: (lab: Lab, agent: TestAgent) => Promise<void>
}

const disks = [{ name: 'root', size: '1Gi' }]

async function running(lab: Lab, options = {}): Promise<TestAgent> {
  const agent = lab.agent(options)
  await lab.create({ disks })
  await lab.untilPhase('Running')
  return agent
}

/** Leaps over the grace period, and the time that is left to QEMU after it. */
async function overGrace(lab: Lab, agent: TestAgent): Promise<void> {
  await lab.until('stopping', (vm) => vm?.status?.stop !== undefined)
  expect(lab.qemus()).toHaveLength(1)
  await lab.skip(graceSeconds - 600)
  await agent.passes(1)
  expect(lab.qemus()).toHaveLength(1)
  await lab.skip(606)
}

const cases: Readonly<Record<string, Case>> = {
  Pending: {
    reach: async (lab) => {
      lab.disks.state = 'failed'
      const agent = lab.agent()
      await lab.create({ disks })
      await lab.untilPhase('Pending')
      return agent
    },
  },
  Provisioning: {
    reach: async (lab) => {
      lab.disks.state = 'preparing'
      const agent = lab.agent()
      await lab.create({ disks })
      await lab.untilPhase('Provisioning')
      return agent
    },
  },
  Starting: {
    reach: async (lab) => {
      lab.script({ qmp: 'mute' })
      const agent = lab.agent(answersWithin)
      await lab.create({ disks })
      await lab.untilPhase('Starting', ({ process }) => process !== undefined)
      // It is forked, and writes that down once it runs.
      await expect.poll(() => lab.starts(), { timeout: 20_000 }).toBe(1)
      return agent
    },
    end: overGrace,
  },
  Running: { reach: (lab) => running(lab) },
  'Running, and the guest does not listen': {
    reach: async (lab) => {
      lab.script({ powerdown: 'ignore' })
      return running(lab)
    },
    end: overGrace,
  },
  Paused: {
    reach: async (lab) => {
      const agent = await running(lab)
      await lab.request('Pause')
      await lab.untilPhase('Paused')
      return agent
    },
  },
  Stopping: {
    reach: async (lab) => {
      lab.script({ powerdown: 'ignore' })
      const agent = await running(lab)
      await lab.change({ runStrategy: 'Halted' })
      await lab.untilPhase('Stopping')
      return agent
    },
    end: overGrace,
  },
  Stopped: {
    reach: async (lab) => {
      const agent = await running(lab)
      await lab.change({ runStrategy: 'Halted' })
      await lab.untilPhase('Stopped')
      return agent
    },
  },
  Failed: {
    reach: async (lab) => {
      lab.script({ exitCode: 1 })
      const agent = lab.agent()
      await lab.create({ disks, runStrategy: 'Once' })
      await lab.untilPhase('Failed')
      return agent
    },
  },
  CrashLoopBackOff: {
    reach: async (lab) => {
      lab.script({ exitCode: 1 })
      const agent = lab.agent()
      await lab.create({ disks })
      await lab.untilPhase('CrashLoopBackOff')
      return agent
    },
  },
  'Unresponsive, as it does not answer': {
    reach: async (lab) => {
      const agent = await running(lab, answersWithin)
      await lab.behave({ qmp: 'mute' })
      await lab.untilPhase('Unresponsive')
      return agent
    },
    end: overGrace,
  },
  'Unresponsive, as it is stopped': {
    reach: async (lab) => {
      const agent = await running(lab)
      process.kill(lab.qemu().pid, 'SIGSTOP')
      await lab.untilPhase('Unresponsive')
      return agent
    },
    end: overGrace,
  },
  'Unresponsive, and then it answers': {
    reach: async (lab) => {
      const agent = await running(lab, answersWithin)
      await lab.behave({ qmp: 'mute' })
      await lab.untilPhase('Unresponsive')
      return agent
    },
    end: async (lab) => {
      await lab.until('stopping', (vm) => vm?.status?.stop !== undefined)
      await tellFake(lab.qemu().pid, { do: 'behave', as: { qmp: 'answers' } })
    },
  },
}

test.for(Object.entries(cases))(
  'a machine that is %s goes, and nothing of it is left',
  async ([, way], { lab }) => {
    const agent = await way.reach(lab)
    const starts = lab.starts()
    await lab.delete()
    await way.end?.(lab, agent)
    await lab.untilGone()
    expect(lab.qemus()).toEqual([])
    expect(lab.starts()).toBe(starts)
    expect(existsSync(lab.paths.dir)).toBe(false)
    expect(lab.disks.removed).toContain(lab.uid)
    const ready = lab.history.at(-1)?.status
    expect(ready?.phase).toBe('Terminating')
  },
)

test('a machine whose process can’t be seen keeps all it has until it can', async ({ lab }) => {
  const proc = new BlindProcfs()
  await lab.create({ disks })
  const agent = lab.agent({ proc })
  await lab.untilPhase('Running')
  proc.blind = true
  await lab.delete()
  await lab.untilPhase('Unknown')
  await lab.skip(graceSeconds * 2)
  await agent.passes(2)
  expect(lab.qemus()).toHaveLength(1)
  expect(lab.disks.removed).toEqual([])
  expect(existsSync(lab.paths.launch)).toBe(true)
  proc.blind = false
  await lab.skip(3)
  await lab.untilGone()
  expect(lab.disks.removed).toEqual([lab.uid])
})

test('a deletion goes on with the next agent', async ({ lab }) => {
  lab.script({ powerdown: 'ignore' })
  const first = await running(lab)
  await lab.delete()
  await lab.until('stopping', (vm) => vm?.status?.stop !== undefined)
  await first.stop()
  const { pid } = lab.qemu()
  const second = lab.agent()
  await second.passes(1)
  expect(lab.qemu().pid).toBe(pid)
  await lab.skip(graceSeconds + 1)
  await lab.untilGone()
  expect(lab.qemus()).toEqual([])
})
