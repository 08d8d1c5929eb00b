import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { QmpMachines } from '../../src/host/machines.ts'
import { vmPaths } from '../../src/host/paths.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'

const uid = '6a1fbb42-6f0c-4f63-9f0a-0f5d2b1f8c11'

/** Longer than any test may take: whoever waits for a socket that will never come fails by the runner's deadline. */
const waitMs = 600_000

let runDir: string
let child: ChildProcess | undefined
let machines: QmpMachines

beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), 'pv-'))
  mkdirSync(vmPaths(runDir, uid).dir, { recursive: true })
  machines = new QmpMachines({ runDir, clock: systemClock, log: silentLog, waitMs })
})

afterEach(async () => {
  child?.kill('SIGKILL')
  await machines.close()
  rmSync(runDir, { recursive: true, force: true })
})

function startQemu(): ChildProcess {
  const args = ['-S', '-nodefaults', '-display', 'none', '-machine', 'none']
  child = spawn(
    'qemu-system-x86_64',
    [...args, '-qmp', `unix:${vmPaths(runDir, uid).qmp},server=on,wait=off`],
    {
      stdio: 'ignore',
    },
  )
  return child
}

function end(qemu: ChildProcess): Promise<unknown> {
  const ended = new Promise((resolve) => qemu.once('exit', resolve))
  qemu.kill('SIGKILL')
  return ended
}

test('a QEMU that was only just started is waited for', async () => {
  const answer = machines.status(uid)
  startQemu()
  expect(await answer).toMatchObject({ state: 'answered', status: 'prelaunch' })
})

test('a QEMU that was reached once and is gone is not waited for', async () => {
  const qemu = startQemu()
  expect(await machines.status(uid)).toMatchObject({ state: 'answered' })
  const closed = new Promise((resolve) =>
    machines.onChange((change) => change.type === 'closed' && resolve(change)),
  )
  await end(qemu)
  await closed
  expect(await machines.status(uid)).toMatchObject({ state: 'unreachable', why: 'refused' })
})

test('a launch makes the next QEMU one to wait for', async () => {
  const first = startQemu()
  expect(await machines.status(uid)).toMatchObject({ state: 'answered' })
  await end(first)
  machines.forget(uid)
  rmSync(vmPaths(runDir, uid).qmp, { force: true })
  const answer = machines.status(uid)
  startQemu()
  expect(await answer).toMatchObject({ state: 'answered' })
})

test('a wait for a QEMU that will not come ends when its machine is given up', async () => {
  const answer = machines.status(uid)
  machines.forget(uid)
  expect(await answer).toMatchObject({ state: 'unreachable', why: 'closed' })
})

test('once closed, no connection is made any more, which would keep the process from ending', async () => {
  startQemu()
  expect(await machines.status(uid)).toMatchObject({ state: 'answered' })
  await machines.close()
  expect(await machines.status(uid)).toMatchObject({
    state: 'unreachable',
    message: 'the server is stopping',
  })
  await expect(machines.execute(uid, 'query-status')).rejects.toMatchObject({ code: 'Closed' })
})
