import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seedImage } from '../../src/host/cloud-init.ts'
import { machine } from '../host/disk-fixture.ts'

const guest = resolve('.cache/guest')
/** Generous: it only ends a boot that would never end. */
const timeoutMs = 600_000
let dir: string

beforeAll(() => {
  execFileSync('sh', ['scripts/guest.sh', guest])
  dir = mkdtempSync(join(tmpdir(), 'guest-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/**
 * Boots the tiny guest until QEMU ends. A microvm has no clock but the PIT to calibrate against: by the host's time the
 * kernel finds that it stands still wherever QEMU has to share its processors, and hangs before its first word; by the
 * instructions that ran it always ticks.
 * @returns what it wrote to its console
 */
function boot(type: string, words: string, devices: readonly string[], kernel = 'vmlinuz'): Promise<string> {
  const args = [
    '-M',
    type,
    '-accel',
    'tcg',
    '-cpu',
    'max',
    '-m',
    '256',
    '-nodefaults',
    '-display',
    'none',
    '-no-reboot',
    // Counting costs half as much again.
    ...(type === 'microvm' ? ['-icount', 'shift=2,sleep=off'] : []),
  ]
  const files = ['-kernel', join(guest, kernel), '-initrd', join(guest, 'initrd.img')]
  const append = ['-append', `console=ttyS0 quiet ${words}`, '-serial', 'stdio']
  const qemu = spawn('qemu-system-x86_64', [...args, ...files, ...append, ...devices], {
    timeout: timeoutMs / 2,
  })
  let text = ''
  qemu.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  return new Promise((done, fail) => {
    qemu.on('error', fail)
    qemu.on('close', () => done(text))
  })
}

test.each(['q35', 'pc'])(
  'the guest on %s mounts our seed, takes its name and powers off',
  async (type) => {
    const seed = join(dir, 'seed.iso')
    writeFileSync(seed, seedImage(machine({ cloudInit: { networkConfig: 'version: 2\n' } })))
    const drive = ['-drive', `file=${seed},if=virtio,format=raw,readonly=on`]
    const text = await boot(type, 'plasmavmc.do=poweroff', drive)
    expect(text).toContain('PlasmaVMC guest seed: meta-data network-config user-data')
    expect(text).toMatch(/PlasmaVMC guest is up: web kernel \d/)
  },
  timeoutMs,
)

test(
  'the guest counts its boots on a microvm',
  async () => {
    const disk = join(dir, 'disk.raw')
    writeFileSync(disk, Buffer.alloc(16 << 20))
    const drive = ['-drive', `file=${disk},if=none,id=d,format=raw`, '-device', 'virtio-blk-device,drive=d']
    const words = 'reboot=t plasmavmc.do=poweroff'
    expect(await boot('microvm', words, drive)).toContain('boot count: 1')
    // The same kernel, decompressed: what other tests boot.
    expect(await boot('microvm', words, drive, 'vmlinux')).toContain('boot count: 2')
  },
  timeoutMs,
)
