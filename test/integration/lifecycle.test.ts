import { existsSync, readFileSync } from 'node:fs'
import { describe, expect } from 'vitest'
import { backoffCapMs, healthyRunMs, restartDelayMs } from '../../src/controllers/vm/exits.ts'
import type { VmStatus } from '../../src/resources/vm.ts'
import { type Lab, test } from './lab.ts'

const restarted = (status: VmStatus) => status.restarts === 1

describe('a machine starts', () => {
  test('and is what its QEMU is', async ({ lab }) => {
    lab.agent()
    await lab.create()
    const status = await lab.untilPhase('Running')
    const { pid, startTime, launchId } = lab.qemu()
    expect(status.process).toMatchObject({ pid, startTime, launchId, accelerator: 'tcg' })
    expect(status).toMatchObject({ restarts: 0, hostName: 'host-a' })
    expect(status.launch).toBeUndefined()
    expect(status.lastExit).toBeUndefined()
    expect(status.conditions.find(({ type }) => type === 'Ready')).toMatchObject({ status: 'True' })
    expect(readFileSync(lab.paths.consoleLog, 'utf8')).toBe('fake guest default/web is up\n')
    expect(existsSync(lab.paths.launch)).toBe(true)
    expect(lab.starts()).toBe(1)
    expect(await lab.events()).toContain('Normal Running')
  })

  test('with a QEMU that answers slowly', async ({ lab }) => {
    lab.script({ answerAfterMs: 100 })
    lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    expect(lab.history.map(({ status }) => status?.phase)).not.toContain('Unresponsive')
    expect(lab.starts()).toBe(1)
  })

  test('and not without QEMU: told why, tried again with back-off', async ({ lab }) => {
    lab.agent({ qemuBinary: '/no/such/qemu' })
    await lab.create()
    const status = await lab.untilPhase('CrashLoopBackOff')
    expect(status.lastExit).toMatchObject({
      reason: 'LaunchFailed',
      message: expect.stringContaining('/no/such/qemu'),
    })
    expect(status.message).toContain(`next try at ${status.backoff?.retryAt}`)
    expect(await lab.events()).toContain('Warning LaunchFailed')
    expect(lab.starts()).toBe(0)
  })
})

describe('a QEMU that ends is noted with how it ended, and replaced', () => {
  async function nextRun(lab: Lab) {
    const status = await lab.untilPhase('Running', restarted)
    expect(lab.qemu().pid).toBe(status.process?.pid)
    expect(lab.starts()).toBe(2)
    return status.lastExit
  }

  test('before it listened', async ({ lab }) => {
    lab.script({ exitCode: 7, lastWords: 'qemu-system-x86_64: the sky fell' }, {})
    lab.agent()
    await lab.create()
    expect(await nextRun(lab)).toMatchObject({
      ...{ reason: 'Crashed', exitCode: 7 },
      message: 'QEMU exited with code 7: qemu-system-x86_64: the sky fell',
    })
    expect(await lab.events()).toContain('Warning Crashed')
  })

  test('while the guest was about to run', async ({ lab }) => {
    lab.script({ crashOn: ['cont'], lastWords: 'assertion failed' }, {})
    lab.agent()
    await lab.create()
    expect(await nextRun(lab)).toMatchObject({
      ...{ reason: 'Crashed', exitCode: 1 },
      message: 'QEMU exited with code 1: assertion failed',
    })
  })

  test('while it ran', async ({ lab }) => {
    lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    await lab.tell({ do: 'exit', code: 3, words: 'out of luck' })
    expect(await nextRun(lab)).toMatchObject({
      ...{ reason: 'Crashed', exitCode: 3 },
      message: 'QEMU exited with code 3: out of luck',
    })
  })

  test.for([
    ['SIGKILL', 'Killed'],
    ['SIGSEGV', 'Crashed'],
  ] as const)('by %s: %s', async ([signal, reason], { lab }) => {
    lab.agent()
    await lab.create()
    await lab.untilPhase('Running')
    const { pid } = lab.qemu()
    process.kill(pid, signal)
    expect(await nextRun(lab)).toMatchObject({ reason, signal })
    expect(lab.qemu().pid).not.toBe(pid)
  })
})

describe('a QEMU that ends again and again', () => {
  const failures = 9

  /** From one failure to the next: waits for the back-off of so many, checks it, leaps over it. */
  async function passBackoff(lab: Lab, count: number): Promise<void> {
    const status = await lab.untilPhase('CrashLoopBackOff', ({ backoff }) => backoff?.failures === count)
    const { retryAt = '' } = status.backoff ?? {}
    expect(status.message).toContain(`next try at ${retryAt}, after ${count} failures in a row`)
    expect(status.message).toContain('the sky fell')
    const seconds = (Date.parse(retryAt) - Date.parse(status.lastExit?.at ?? '')) / 1_000
    const wanted = restartDelayMs(count) / 1_000
    // Both times are whole seconds, the second one rounded up.
    expect(seconds).toBeGreaterThanOrEqual(wanted)
    expect(seconds).toBeLessThanOrEqual(wanted + 2)
    expect(lab.starts()).toBe(count)
    // Halfway, where there is room for a slow machine, a look at it starts nothing.
    if (wanted >= 80) {
      await lab.skip(wanted / 2)
      await lab.change({ cpu: { cores: count } })
      await lab.until('looked at', (vm) => vm?.status?.observedGeneration === vm?.metadata.generation)
      expect(lab.starts()).toBe(count)
    }
    await lab.skip(wanted + 2)
  }

  test('is tried later and later, at most every five minutes; a healthy run clears it', async ({ lab }) => {
    lab.script(...Array.from({ length: failures }, () => ({ exitCode: 1, lastWords: 'the sky fell' })), {})
    lab.agent()
    await lab.create()
    for (let count = 2; count <= failures; count++) await passBackoff(lab, count)
    expect(restartDelayMs(failures)).toBe(backoffCapMs)
    const running = await lab.untilPhase('Running')
    expect(running.backoff?.failures).toBe(failures)
    await lab.skip(healthyRunMs / 1_000 + 1)
    await lab.until('the failures are forgotten', (vm) => vm?.status?.backoff === undefined)
    process.kill(lab.qemu().pid, 'SIGKILL')
    const again = await lab.untilPhase('Running', ({ restarts }) => restarts === failures + 1)
    expect(again.backoff?.failures).toBe(1)
  })

  test('is tried at once when somebody asks for it', async ({ lab }) => {
    lab.script({ exitCode: 1 }, { exitCode: 1 }, {})
    lab.agent()
    await lab.create({ runStrategy: 'RerunOnFailure' })
    await lab.untilPhase('CrashLoopBackOff')
    await lab.request('Start')
    await lab.untilPhase('Running')
    expect(lab.starts()).toBe(3)
  })
})
