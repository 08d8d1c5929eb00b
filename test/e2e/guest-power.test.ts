import { existsSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { Lab, linux, processOf, tiny, uidOf } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
})
afterAll(() => lab.close())

const timeout = 300_000
const panic = 'echo c > /proc/sysrq-trigger'

/** Makes a machine and waits until its guest is up. */
async function boot(name: string, runStrategy: string): Promise<VirtualMachine> {
  const uid = uidOf(await lab.create(linux(name, { runStrategy })))
  await lab.booted(uid, 1)
  return lab.running(name)
}

/** The guest does something that ends its run, for this reason; @returns the machine as it then is. */
async function ends(vm: VirtualMachine, line: string, reason: string): Promise<VirtualMachine> {
  const { name } = vm.metadata
  const { launchId } = processOf(await lab.running(name))
  const ended = lab.sees(name, `ended: ${reason}`, ({ status }) => status?.lastExit?.launchId === launchId)
  await lab.type(uidOf(vm), line)
  const after = await ended
  expect(after.status?.lastExit).toMatchObject({ reason, launchId })
  return after
}

async function next(name: string, restarts: number): Promise<VirtualMachine> {
  return lab.sees(name, `runs again (${restarts})`, ({ status }) => {
    return status?.phase === 'Running' && status.restarts === restarts
  })
}

async function eventsOf(name: string): Promise<string> {
  const { stdout } = await lab.cli('events')
  return stdout
    .split('\n')
    .filter((line) => line.includes(`virtualmachine/${name} `))
    .join('\n')
}

test.concurrent('Always: reset and reboot keep the QEMU, and only a reboot counts; panic and poweroff get another', {
  timeout,
}, async () => {
  const vm = await boot('always', 'Always')
  const uid = uidOf(vm)
  const { pid, launchId } = processOf(vm)

  await lab.type(uid, 'reboot -f')
  const once = await lab.sees('always', 'rebooted', ({ status }) => status?.guest?.reboots === 1)
  expect(once.status?.guest?.lastRebootAt).toMatch(/^\d{4}-/)
  await lab.booted(uid, 2)
  await lab.verb('always', 'reset')
  await lab.booted(uid, 3)
  await lab.type(uid, 'reboot -f')
  const twice = await lab.sees('always', 'rebooted again', ({ status }) => (status?.guest?.reboots ?? 0) > 1)
  expect(twice.status).toMatchObject({ phase: 'Running', restarts: 0, guest: { reboots: 2, watchdogs: 0 } })
  await lab.told('always', 'GuestRebooted', 2)
  await lab.told('always', 'Reset', 1)
  await lab.booted(uid, 4)
  const same = await lab.running('always')
  expect(processOf(same)).toMatchObject({ pid, launchId })
  expect(same.status).toMatchObject({ restarts: 0 })
  expect(same.status?.lastExit).toBeUndefined()

  await ends(vm, panic, 'GuestPanicked')
  await next('always', 1)
  await lab.booted(uid, 5)
  await ends(vm, 'poweroff -f', 'GuestShutdown')
  await next('always', 2)
  expect(lab.qemus(uid)).toHaveLength(1)
  expect(lab.console(uid)).toContain('boot count: 5')
  const events = await eventsOf('always')
  expect(events).toMatch(/Warning +GuestPanicked .*kernel panicked/)
  expect(events).toMatch(/Normal +GuestShutdown .*powered down/)
  expect(events).toMatch(/Normal +Reset /)
})

test.concurrent('RerunOnFailure: panic gets another QEMU, poweroff does not; stop presses the power button', {
  timeout,
}, async () => {
  const vm = await boot('rerun', 'RerunOnFailure')
  const uid = uidOf(vm)
  await ends(vm, panic, 'GuestPanicked')
  await next('rerun', 1)
  await lab.booted(uid, 2)
  await ends(vm, 'poweroff -f', 'GuestShutdown')
  const off = await lab.sees('rerun', 'is Stopped', ({ status }) => status?.phase === 'Stopped')
  expect(off.status).toMatchObject({ reason: 'GuestShutdown', restarts: 1 })
  expect(lab.qemus(uid)).toEqual([])

  expect((await lab.cli('start', 'rerun')).stdout).toContain('start requested')
  await lab.booted(uid, 3)
  await lab.running('rerun')
  const before = lab.console(uid).length
  expect((await lab.cli('stop', 'rerun')).stdout).toContain('stop requested')
  const stopped = await lab.sees('rerun', 'is Stopped', ({ status }) => status?.phase === 'Stopped')
  // The kernel's last words: init was told of the power button and ended everything itself.
  expect(lab.console(uid).slice(before)).toMatch(/reboot: Power down/)
  expect(stopped.status?.lastExit).toMatchObject({ reason: 'Stopped', message: 'the guest powered down' })
  expect(lab.qemus(uid)).toEqual([])
})

test.concurrent('a guest that does not power down is ended by quit when the grace period is over', async () => {
  await lab.create(tiny('deaf', { terminationGracePeriodSeconds: 1 }))
  const vm = await lab.running('deaf')
  const { pidfile } = lab.paths(uidOf(vm))
  expect(existsSync(pidfile)).toBe(true)
  expect((await lab.cli('stop', 'deaf')).code).toBe(0)
  const stopped = await lab.sees('deaf', 'is Stopped', ({ status }) => status?.phase === 'Stopped')
  expect(stopped.status?.lastExit).toMatchObject({ reason: 'Stopped' })
  expect(stopped.spec.runStrategy).toBe('Halted')
  // QEMU takes its pidfile along when it ends in order; one that was killed leaves it.
  expect(existsSync(pidfile)).toBe(false)
})

test.concurrent('pause holds the guest until unpause', async () => {
  await lab.create(tiny('paused'))
  await lab.running('paused')
  expect((await lab.cli('pause', 'paused')).stdout).toContain('pause requested')
  const held = await lab.sees('paused', 'is Paused', ({ status }) => status?.phase === 'Paused')
  expect(held.status?.conditions).toContainEqual(
    expect.objectContaining({ type: 'Paused', status: 'True', reason: 'PausedByUser' }),
  )
  const again = await lab.cli('pause', 'paused')
  expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('it is paused already') })
  expect((await lab.cli('unpause', 'paused')).stdout).toContain('unpause requested')
  const on = await lab.running('paused')
  expect(processOf(on)).toEqual(processOf(held))
})
