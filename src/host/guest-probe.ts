import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { withDeadline } from '../lib/deadline.ts'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { run } from './exec.ts'

/**
 * The least guest that does what every kernel does: a boot sector that leaves real mode for long mode with paging,
 * enters user mode (sysret) and comes back by a system call, and only then writes 0x2a to port 0xf4. Code in hex,
 * 16-bit up to the far jump:
 */
const sectorCode = [
  'fa 31c0 8ed8 8ec0 8ed0 bc007c fc', // interrupts off; ds, es, ss = 0; sp = 0x7c00
  'bf0010 b90018 f3ab', // zeros at 0x1000 to 0x3fff, for three page tables:
  'c70600100720 c70600200730 c70600308700', // the first 2 MiB as they are, for user mode too
  '66b8a0000000 0f22e0 66b800100000 0f22d8', // cr4 = PAE, PGE; cr3 = 0x1000
  '66b9800000c0 0f32 660d01010000 0f30', // EFER |= LME, SCE
  '0f0116d87c 66b801000080 0f22c0', // lgdt; cr0 = PG, PE
  'ea5c7c0800', // to the next line, as 64-bit code
  'b810000000 8ed0 bc00700000', // ss = 0x10; esp = 0x7000
  'b9810000c0 31c0 ba08001000 0f30', // STAR: kernel 0x08, user 0x10
  'ffc1 b89e7c0000 31d2 0f30', // LSTAR: system calls go to 0x7c9e
  '0f20d8 0f22d8', // cr3 again: the translations are flushed
  'b9957c0000 41bb02000000 480f07', // sysretq to 0x7c95
  '8cc8 bb2a000000 0f05', // user mode: eax = cs, ebx = 0x2a, system call
  '83e003 83f803 7504 89d8 e6f4', // kernel, 0x7c9e: it came from ring 3: out 0xf4, bl
  'f4 ebfd 0f1f00', // else: stop for ever
  '0000000000000000 00000000009a2000 0000000000920000', // gdt: none, kernel code and data,
  '0000000000f20000 0000000000fa2000', // user data and code
  '2700 b07c0000', // its limit and place
]

/** isa-debug-exit ends QEMU with (value << 1) | 1. */
const provenExitCode = (0x2a << 1) | 1

function bootSector(): Buffer {
  const sector = Buffer.alloc(512)
  Buffer.from(sectorCode.join('').replaceAll(' ', ''), 'hex').copy(sector)
  sector.writeUInt16BE(0x55aa, 510)
  return sector
}

function probeArgs(accelerator: string, disk: string): string[] {
  return [
    ...['-machine', `pc,accel=${accelerator}`, '-cpu', 'max', '-m', '16', '-display', 'none'],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-sandbox', 'on'],
    ...['-blockdev', JSON.stringify({ driver: 'file', 'node-name': 'file', filename: disk })],
    ...['-blockdev', JSON.stringify({ driver: 'raw', 'node-name': 'disk', file: 'file' })],
    ...['-device', 'ide-hd,drive=disk', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
  ]
}

/**
 * Whether a guest really runs under an accelerator: boots the smallest one that proves it, and ends it. `unknown` where
 * the deadline passed: the guest may be stuck, or the host be busy, or the device hang so that not even SIGKILL ends
 * QEMU.
 */
export async function runsGuests(
  qemu: string,
  accelerator: 'kvm' | 'tcg',
  timeoutMs: number,
): Promise<'yes' | 'no' | 'unknown'> {
  const dir = await mkdtemp(join(tmpdir(), 'plasmavmc-probe-'))
  try {
    const disk = join(dir, 'disk')
    await writeFile(disk, bootSector())
    const options = { timeoutMs, endsWithUs: true, exitCodes: [provenExitCode] }
    await withDeadline(timeoutMs + 1_000, 'the proof', (signal) =>
      run(qemu, probeArgs(accelerator, disk), { ...options, signal }),
    )
    return 'yes'
  } catch (error) {
    if (error instanceof PlasmaError) return error.code === 'Timeout' ? 'unknown' : 'no'
    if (errnoOf(error) !== undefined) return 'unknown'
    throw error
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
