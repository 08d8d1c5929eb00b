import { execFileSync } from 'node:child_process'
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VirtualMachine } from '../../src/resources/vm.ts'
import { privileged } from '../host/disk-fixture.ts'
import { deadlineMs, Lab, linux, processOf, tinyKernel, uidOf } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
  lab.installGuest()
})
afterAll(() => lab.close())

const timeout = 300_000
/** What the guest does once it is up: a boot comes first. */
const bootMs = 2 * deadlineMs

/** A guest whose kernel is told to do something once it is up. */
function doing(name: string, words: string, spec: Record<string, unknown>) {
  return lab.create(linux(name, { kernel: tinyKernel(`plasmavmc.do=${words}`), ...spec }))
}

test('a watchdog that powers off is a failure: RerunOnFailure comes up again', { timeout }, async () => {
  const devices = { watchdog: { action: 'poweroff' } }
  await doing('bitten', 'watchdog', { runStrategy: 'RerunOnFailure', devices })
  const { launchId } = processOf(await lab.running('bitten'))
  const ended = await lab.sees(
    'bitten',
    'the watchdog fired',
    ({ status }) => status?.lastExit !== undefined,
    bootMs,
  )
  expect(ended.status?.lastExit).toMatchObject({ reason: 'WatchdogPoweroff', launchId })
  const again = await lab.sees('bitten', 'runs again', ({ status }) => {
    return status?.phase === 'Running' && status.restarts === 1
  })
  expect(processOf(again).launchId).not.toBe(launchId)
  await lab.remove('bitten')
  const [event] = await lab.eventsOf('bitten', 'WatchdogPoweroff')
  expect(event).toMatchObject({ type: 'Warning', message: 'the watchdog fired and powered the guest off' })
})

test('a watchdog that resets is told apart from a reboot', { timeout }, async () => {
  const vm = await doing('reset', 'watchdog', { devices: { watchdog: { action: 'reset' } } })
  const fired = await lab.sees('reset', 'fired', ({ status }) => (status?.guest?.watchdogs ?? 0) > 0, bootMs)
  const uid = uidOf(vm)
  await lab.booted(uid, 2)
  const later = await lab.vm('reset')
  expect(later.status?.guest).toMatchObject({ reboots: 0 })
  expect(processOf(later).pid).toBe(processOf(fired).pid)
  const [event] = await lab.eventsOf('reset', 'WatchdogFired')
  expect(event).toMatchObject({ type: 'Warning', message: 'the watchdog fired and reset the guest' })
  await lab.remove('reset')
})

test('a watchdog that pauses holds the guest until it is unpaused', { timeout }, async () => {
  const devices = { watchdog: { action: 'pause' } }
  await doing('held', 'watchdog', { runStrategy: 'Once', devices })
  const held = await lab.sees('held', 'is held', ({ status }) => status?.phase === 'Paused', bootMs)
  expect(held.status).toMatchObject({ reason: 'Watchdog', guest: { watchdogs: 1 } })
  await lab.told('held', 'Watchdog', 1)
  await lab.verb('held', 'unpause')
  await lab.running('held')
})

test('a panic is told of once', { timeout }, async () => {
  // The guest of the watchdog goes on.
  await lab.type(uidOf(await lab.running('held')), 'echo c > /proc/sysrq-trigger')
  const failed = await lab.sees('held', 'has panicked', ({ status }) => status?.phase === 'Failed')
  expect(failed.status?.lastExit).toMatchObject({ reason: 'GuestPanicked' })
  await lab.told('held', 'GuestPanicked', 1)
  await lab.remove('held')
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
      await lab.told('full', 'IOError', 1)
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
