import { execFileSync } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { privileged } from '../host/disk-fixture.ts'
import { Lab, linux, processOf, uidOf } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
})
afterAll(() => lab.close())

const timeout = 300_000

interface EventView {
  readonly reason: string
  readonly type: string
  readonly message: string
  readonly count: number
  readonly involvedObject: { readonly name: string }
}

/** The events of a machine with this reason. */
async function eventsOf(name: string, reason: string): Promise<EventView[]> {
  const { items } = await lab.client.json<{ items: EventView[] }>('GET', '/api/v1/namespaces/default/events')
  return items.filter((event) => event.involvedObject.name === name && event.reason === reason)
}

/** Waits until as many events of this reason were recorded; more would be one happening told twice. */
async function told(name: string, reason: string, count: number): Promise<string> {
  const counted = async () => (await eventsOf(name, reason)).reduce((sum, event) => sum + event.count, 0)
  await lab.until(`${count} events ${reason}`, async () => (await counted()) >= count)
  expect(await counted(), reason).toBe(count)
  return (await eventsOf(name, reason))[0]?.message ?? ''
}

/** A guest whose kernel is told to do something once it is up. */
function doing(name: string, words: string, spec: Record<string, unknown>) {
  const kernel = {
    image: 'hello/vmlinuz',
    initrd: 'hello/initrd.img',
    cmdline: `console=ttyS0 quiet plasmavmc.do=${words}`,
  }
  return lab.create(linux(name, { kernel, ...spec }))
}

test('a guest that reboots is counted and told of; an admin’s reset is not the guest’s', {
  timeout,
}, async () => {
  const uid = uidOf(await lab.create(linux('again')))
  await lab.booted(uid, 1)
  const { pid } = processOf(await lab.running('again'))
  await lab.type(uid, 'reboot -f')
  const once = await lab.sees('again', 'rebooted', ({ status }) => status?.guest?.reboots === 1)
  expect(once.status?.guest?.lastRebootAt).toMatch(/^\d{4}-/)
  await lab.booted(uid, 2)
  await lab.verb('again', 'reset')
  await lab.booted(uid, 3)
  await lab.type(uid, 'reboot -f')
  const twice = await lab.sees('again', 'rebooted again', ({ status }) => (status?.guest?.reboots ?? 0) > 1)
  expect(twice.status).toMatchObject({ phase: 'Running', restarts: 0, guest: { reboots: 2, watchdogs: 0 } })
  expect(processOf(twice).pid).toBe(pid)
  await told('again', 'GuestRebooted', 2)
  await told('again', 'Reset', 1)
  await lab.remove('again')
})

test('a watchdog that powers off is a failure: RerunOnFailure comes up again', { timeout }, async () => {
  const devices = { watchdog: { action: 'poweroff' } }
  await doing('bitten', 'watchdog', { runStrategy: 'RerunOnFailure', devices })
  const { launchId } = processOf(await lab.running('bitten'))
  const ended = await lab.sees('bitten', 'the watchdog fired', ({ status }) => status?.lastExit !== undefined)
  expect(ended.status?.lastExit).toMatchObject({ reason: 'WatchdogPoweroff', launchId })
  const again = await lab.sees('bitten', 'runs again', ({ status }) => {
    return status?.phase === 'Running' && status.restarts === 1
  })
  expect(processOf(again).launchId).not.toBe(launchId)
  await lab.remove('bitten')
  const [event] = await eventsOf('bitten', 'WatchdogPoweroff')
  expect(event).toMatchObject({ type: 'Warning', message: 'the watchdog fired and powered the guest off' })
})

test('a watchdog that resets is told apart from a reboot', { timeout }, async () => {
  const vm = await doing('reset', 'watchdog', { devices: { watchdog: { action: 'reset' } } })
  const fired = await lab.sees('reset', 'fired', ({ status }) => (status?.guest?.watchdogs ?? 0) > 0)
  const uid = uidOf(vm)
  await lab.booted(uid, 2)
  const later = await lab.vm('reset')
  expect(later.status?.guest).toMatchObject({ reboots: 0 })
  expect(processOf(later).pid).toBe(processOf(fired).pid)
  const [event] = await eventsOf('reset', 'WatchdogFired')
  expect(event).toMatchObject({ type: 'Warning', message: 'the watchdog fired and reset the guest' })
  await lab.remove('reset')
})

test('a watchdog that pauses holds the guest until it is unpaused', { timeout }, async () => {
  await doing('held', 'watchdog', { devices: { watchdog: { action: 'pause' } } })
  const held = await lab.sees('held', 'is held', ({ status }) => status?.phase === 'Paused')
  expect(held.status).toMatchObject({ reason: 'Watchdog', guest: { watchdogs: 1 } })
  await told('held', 'Watchdog', 1)
  await lab.verb('held', 'unpause')
  await lab.running('held')
  await lab.remove('held')
})

test('a panic is told of once', { timeout }, async () => {
  await doing('panics', 'panic', { runStrategy: 'Once' })
  const failed = await lab.sees('panics', 'has panicked', ({ status }) => status?.phase === 'Failed')
  expect(failed.status?.lastExit).toMatchObject({ reason: 'GuestPanicked' })
  await told('panics', 'GuestPanicked', 1)
  await lab.remove('panics')
})

/** Makes a file system that is too small for what its disk promises. */
function smallStorage(name: string): { readonly path: string; readonly grow: () => void } {
  const dir = join(lab.dir, name)
  mkdirSync(dir)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', dir])
  const path = join(dir, 'disk.raw')
  writeFileSync(path, '')
  truncateSync(path, 32 << 20)
  return { path, grow: () => execFileSync('mount', ['-o', 'remount,size=64m', dir]) }
}

test.runIf(privileged)(
  'a full storage holds the guest, names the disk, and lets go',
  { timeout },
  async () => {
    const storage = smallStorage('full')
    try {
      const disks = [
        { name: 'data', size: '16Mi', format: 'raw' },
        { name: 'logs', path: storage.path, format: 'raw' },
      ]
      const uid = uidOf(await lab.create(linux('full', { disks })))
      await lab.booted(uid, 1)
      const { pid } = processOf(await lab.running('full'))
      await lab.type(uid, 'dd if=/dev/urandom of=/dev/vdb bs=1M count=16; sync; echo w""ritten')
      const isHeld = ({ status }: VirtualMachine) => status?.reason === 'IOError'
      const held = await lab.sees('full', 'is held', isHeld)
      expect(held.status).toMatchObject({ phase: 'Paused', message: expect.stringContaining('disk logs') })
      expect(held.status?.message).toContain('no space left')
      expect(held.status?.ioError?.cause).toContain('disk logs: no space left')
      await told('full', 'IOError', 1)
      storage.grow()
      await lab.until('the guest has written', () => lab.console(uid).includes('written'))
      expect(processOf(await lab.running('full')).pid).toBe(pid)
      await lab.remove('full')
      await lab.gone('full')
    } finally {
      for (const { pid } of lab.qemus()) process.kill(pid, 'SIGKILL')
      await lab.until('no QEMU uses it', () => lab.qemus().length === 0)
      execFileSync('umount', ['-l', join(lab.dir, 'full')])
    }
  },
)
