import { rmSync } from 'node:fs'
import { describe, expect } from 'vitest'
import type { Behaviour } from '../fakes/qemu/script.ts'
import { answersWithin, graceSeconds, type Lab, test } from './lab.ts'

async function running(lab: Lab, spec: Record<string, unknown> = {}, options = {}) {
  const agent = lab.agent(options)
  await lab.create(spec)
  await lab.untilPhase('Running')
  return agent
}

describe('the guest', () => {
  test.for([
    ['panic', 'GuestPanicked'],
    ['internal-error', 'InternalError'],
  ] as const)('%s: ends the run as %s and comes up again', async ([act, reason], { lab }) => {
    await running(lab)
    await lab.guest(act)
    const status = await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
    expect(status.lastExit?.reason).toBe(reason)
    expect(status.backoff?.failures).toBe(1)
    expect(await lab.events()).toContain(`Warning ${reason}`)
    expect(lab.commands()).toContain('quit')
  })

  test('reboots: told, and the same QEMU goes on', async ({ lab }) => {
    await running(lab)
    const { pid } = lab.qemu()
    await lab.guest('reboot')
    const status = await lab.untilPhase('Running', ({ guest }) => guest?.reboots === 1)
    expect(status).toMatchObject({ restarts: 0, process: { pid } })
    expect(await lab.events()).toContain('Normal GuestRebooted')
    expect(lab.starts()).toBe(1)
  })

  test('hangs, and the watchdog resets it: told, and the same QEMU goes on', async ({ lab }) => {
    await running(lab, { devices: { watchdog: { action: 'reset' } } })
    const { pid } = lab.qemu()
    await lab.guest('watchdog')
    const status = await lab.untilPhase('Running', ({ guest }) => guest?.watchdogs === 1)
    expect(status).toMatchObject({ restarts: 0, process: { pid } })
    expect(await lab.events()).toContain('Warning WatchdogFired')
  })

  test('hangs, and the watchdog powers it off: a failure, so it comes up again', async ({ lab }) => {
    await running(lab, { runStrategy: 'RerunOnFailure', devices: { watchdog: { action: 'poweroff' } } })
    await lab.guest('watchdog')
    const status = await lab.untilPhase('Running', ({ restarts }) => restarts === 1)
    expect(status.lastExit?.reason).toBe('WatchdogPoweroff')
  })

  test('hangs, and the watchdog pauses it: until somebody lets it go on', async ({ lab }) => {
    const agent = await running(lab, { devices: { watchdog: { action: 'pause' } } })
    const { pid } = lab.qemu()
    await lab.guest('watchdog')
    const status = await lab.untilPhase('Paused', ({ reason }) => reason === 'Watchdog')
    expect(status.conditions.find(({ type }) => type === 'Paused')).toMatchObject({ status: 'True' })
    await agent.passes(2)
    expect((await lab.status()).phase).toBe('Paused')
    expect(await lab.events()).toContain('Warning Watchdog')
    await lab.request('Unpause')
    await lab.untilPhase('Running')
    expect(lab.qemu().pid).toBe(pid)
  })

  test('meets an I/O error: paused with its cause, then resumed with back-off', async ({ lab }) => {
    await running(lab, { disks: [{ name: 'root', size: '1Gi' }] })
    const { pid } = lab.qemu()
    await lab.guest('io-error')
    const first = await lab.untilPhase('Paused', ({ reason }) => reason === 'IOError')
    expect(first.ioError?.retries).toBe(1)
    expect(first.message).toContain('disk root')
    expect(first.message).toMatch(/no space left/i)
    await lab.skip(6)
    await lab.untilPhase('Running')
    await lab.guest('io-error')
    const second = await lab.untilPhase('Paused', ({ reason }) => reason === 'IOError')
    expect(second.ioError?.retries).toBe(2)
    await lab.skip(11)
    const third = await lab.untilPhase('Running')
    expect(third.ioError?.retries).toBe(3)
    await lab.skip(60 + 21)
    await lab.until('the errors are forgotten', (vm) => vm?.status?.ioError === undefined)
    expect(lab.qemu().pid).toBe(pid)
    expect(lab.starts()).toBe(1)
    expect(await lab.events()).toContain('Warning IOError')
  })

  test('ignores powerdown: quit, after the grace period', async ({ lab }) => {
    lab.script({ powerdown: 'ignore' })
    const agent = await running(lab)
    await lab.change({ runStrategy: 'Halted' })
    await lab.untilPhase('Stopping')
    await lab.untilTrue('powerdown', () => lab.commands().includes('system_powerdown') || undefined)
    await lab.skip(graceSeconds - 600)
    await agent.passes(1)
    expect(lab.commands()).not.toContain('quit')
    await lab.skip(601)
    await lab.untilPhase('Stopped')
    expect(lab.commands()).toContain('quit')
    expect(agent.exits).toEqual([expect.objectContaining({ exitCode: 0 })])
  })

  test('and QEMU ignore both: killed, five seconds later', async ({ lab }) => {
    lab.script({ powerdown: 'ignore', quit: 'ignore' })
    const agent = await running(lab)
    await lab.change({ runStrategy: 'Halted' })
    await lab.untilPhase('Stopping')
    await lab.skip(graceSeconds + 1)
    await lab.untilTrue('quit', () => lab.commands().includes('quit') || undefined)
    expect(lab.qemus()).toHaveLength(1)
    await lab.skip(5)
    const status = await lab.untilPhase('Stopped')
    expect(status.lastExit?.reason).toBe('Stopped')
    expect(agent.exits).toEqual([expect.objectContaining({ signal: 'SIGKILL' })])
  })
})

describe('a QEMU that ran', () => {
  test('stops answering: Unresponsive and left alone, until it answers again', async ({ lab }) => {
    const agent = await running(lab, {}, answersWithin)
    const { pid } = lab.qemu()
    await lab.behave({ qmp: 'mute' })
    const status = await lab.untilPhase('Unresponsive')
    expect(status.conditions.find(({ type }) => type === 'Ready')).toMatchObject({ status: 'Unknown' })
    await lab.skip(3_600)
    await agent.passes(2)
    expect(await lab.status()).toMatchObject({ phase: 'Unresponsive', process: { pid } })
    await lab.behave({ qmp: 'answers' })
    await lab.untilPhase('Running')
    expect(lab.qemu().pid).toBe(pid)
    expect(lab.starts()).toBe(1)
    expect(await lab.events()).toEqual(expect.arrayContaining(['Warning Unresponsive', 'Normal Responsive']))
  })

  test('closes the connection: it is made anew, and nothing is seen of it', async ({ lab }) => {
    const agent = await running(lab)
    const before = lab.history.length
    await lab.tell({ do: 'drop' })
    await lab.untilTrue(
      'connected again',
      () => lab.commands().filter((name) => name === 'qmp_capabilities').length === 2 || undefined,
    )
    await agent.passes(1)
    expect(lab.history.slice(before).map(({ status }) => status?.phase)).toEqual([])
  })

  test('loses its socket: Unresponsive to the next agent, no second one is started, and a stop ends it', async ({
    lab,
  }) => {
    await (await running(lab)).stop()
    const { pid } = lab.qemu()
    rmSync(lab.paths.qmp)
    const agent = lab.agent(answersWithin)
    expect((await lab.untilPhase('Unresponsive')).process?.pid).toBe(pid)
    const request = { vm: lab.manifest(), launchId: 'l-2', epoch: 0, disks: new Map() }
    await expect(agent.processes.launch(request)).rejects.toMatchObject({ code: 'AlreadyRunning' })
    await agent.passes(2)
    expect(lab.starts()).toBe(1)
    await lab.change({ runStrategy: 'Halted' })
    await lab.until('stopping', (vm) => vm?.status?.stop !== undefined)
    await lab.skip(graceSeconds - 600)
    await agent.passes(1)
    expect(lab.qemu().pid).toBe(pid)
    await lab.skip(606)
    await lab.untilPhase('Stopped')
    expect(lab.qemus()).toEqual([])
  })

  test('is stopped by a signal: Unresponsive with what to do, and goes on', async ({ lab }) => {
    await running(lab)
    const { pid } = lab.qemu()
    process.kill(pid, 'SIGSTOP')
    const status = await lab.untilPhase('Unresponsive', ({ reason }) => reason === 'ProcessStopped')
    expect(status.message).toContain(`kill -CONT ${pid}`)
    process.kill(pid, 'SIGCONT')
    expect((await lab.untilPhase('Running')).process?.pid).toBe(pid)
    expect(lab.starts()).toBe(1)
  })

  test('is stopped by a signal while it is to be stopped: killed after the grace period', async ({ lab }) => {
    const agent = await running(lab)
    process.kill(lab.qemu().pid, 'SIGSTOP')
    await lab.untilPhase('Unresponsive')
    await lab.change({ runStrategy: 'Halted' })
    await lab.until('stopping', (vm) => vm?.status?.stop !== undefined)
    await lab.skip(graceSeconds - 600)
    await agent.passes(1)
    expect(lab.qemus()).toHaveLength(1)
    await lab.skip(606)
    await lab.untilPhase('Stopped')
    expect(agent.exits).toEqual([expect.objectContaining({ signal: 'SIGKILL' })])
  })
})

describe('a QEMU that never answers', () => {
  const kinds: readonly NonNullable<Behaviour['qmp']>[] = ['absent', 'refusing', 'silent', 'mute', 'garbage']

  test.for(kinds)('(%s) is Starting, then Unresponsive, and never doubled', async (qmp, { lab }) => {
    lab.script({ qmp })
    const agent = lab.agent(answersWithin)
    await lab.create()
    const starting = await lab.untilPhase('Starting', ({ reason }) => reason === 'WaitingForQmp')
    expect(starting.process?.pid).toBe(lab.qemu().pid)
    await lab.skip(31)
    await lab.untilPhase('Unresponsive')
    await agent.passes(2)
    expect(lab.starts()).toBe(1)
    expect(lab.commands()).not.toContain('cont')
    if (qmp === 'absent' || qmp === 'refusing') return
    await lab.behave({ qmp: 'answers' })
    expect((await lab.untilPhase('Running')).process?.pid).toBe(lab.qemu().pid)
  })
})
