import { close, constants, open, readFile } from 'node:fs'
import { promisify } from 'node:util'

export interface AcceleratorProbes {
  readonly kvmDevice?: string
  readonly cpuinfo?: string
}

/** Whether a text of /proc/cpuinfo names hardware virtualization: Intel's vmx or AMD's svm. */
export function hasVirtualization(cpuinfo: string): boolean {
  return /^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(cpuinfo)
}

async function opens(path: string): Promise<boolean> {
  try {
    await promisify(close)(await promisify(open)(path, constants.O_RDWR))
    return true
  } catch {
    return false
  }
}

/**
 * KVM only where guests really run under it: /dev/kvm opens and the processor has virtualization of its own.
 * The device alone proves nothing: a kernel in a guest without nested virtualization may offer one (by software)
 * that opens, and no ordinary guest kernel boots on it.
 */
export async function detectAccelerator(probes: AcceleratorProbes = {}): Promise<'kvm' | 'tcg'> {
  const { kvmDevice = '/dev/kvm', cpuinfo = '/proc/cpuinfo' } = probes
  const text = await promisify(readFile)(cpuinfo, 'utf8').catch(() => '')
  return hasVirtualization(text) && (await opens(kvmDevice)) ? 'kvm' : 'tcg'
}
