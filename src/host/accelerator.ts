import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { makeWhole } from './durable-files.ts'
import { runsGuests } from './guest-probe.ts'
import { findProgram } from './host-facts.ts'

export interface AcceleratorProbes {
  readonly kvmDevice?: string
  readonly cpuinfo?: string
  /** `qemu-system-x86_64` on PATH unless given. */
  readonly qemuBinary?: string
  /** How long the proof may take, in milliseconds; 10 000 unless given. */
  readonly timeoutMs?: number
  /** Where what was proven is kept for this boot and this QEMU; proven anew at each call unless given. */
  readonly cacheDir?: string
  readonly bootId?: string
}

/** Whether a text of /proc/cpuinfo names hardware virtualization: Intel's vmx or AMD's svm. */
export function hasVirtualization(cpuinfo: string): boolean {
  return /^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(cpuinfo)
}

const proof = z.object({ key: z.string(), works: z.boolean() })

async function cached(file: string, key: string): Promise<boolean | undefined> {
  try {
    const found = proof.parse(JSON.parse(await readFile(file, 'utf8')))
    return found.key === key ? found.works : undefined
  } catch {
    return undefined
  }
}

/** What a proof is good for: this boot, this QEMU, this device. */
async function keyOf(qemu: string, device: string, bootId: string): Promise<string> {
  const [binary, kvm] = await Promise.all([stat(qemu), stat(device)])
  return [bootId, qemu, binary.mtimeMs, kvm.rdev, kvm.ino].join(' ')
}

/**
 * KVM only where guests really run under it: the processor has virtualization of its own and a guest has just run. The
 * device alone proves nothing: a kernel in a guest without nested virtualization may offer one (by software) that
 * opens, and no ordinary guest kernel boots on it. TCG wherever KVM is not proven; never rejects for want of anything.
 */
export async function detectAccelerator(probes: AcceleratorProbes = {}): Promise<'kvm' | 'tcg'> {
  const { kvmDevice = '/dev/kvm', cpuinfo = '/proc/cpuinfo', timeoutMs = 10_000, cacheDir } = probes
  const text = await readFile(cpuinfo, 'utf8').catch(() => '')
  if (!hasVirtualization(text)) return 'tcg'
  // Never opened by us: an open that hangs would take one of the few threads that serve files.
  const device = await stat(kvmDevice).catch(() => undefined)
  const qemu = await findProgram(probes.qemuBinary ?? 'qemu-system-x86_64')
  if (device === undefined || qemu === undefined) return 'tcg'
  const bootId = probes.bootId ?? (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  const key = await keyOf(qemu, kvmDevice, bootId)
  const file = cacheDir === undefined ? undefined : join(cacheDir, 'kvm-proof.json')
  const before = file === undefined ? undefined : await cached(file, key)
  if (before !== undefined) return before ? 'kvm' : 'tcg'
  const works = await runsGuests(qemu, 'kvm', timeoutMs)
  if (file !== undefined && works !== 'unknown') {
    const kept = JSON.stringify({ key, works: works === 'yes' })
    await makeWhole(file, (part) => writeFile(part, kept, { mode: 0o600 })).catch(() => {})
  }
  return works === 'yes' ? 'kvm' : 'tcg'
}
