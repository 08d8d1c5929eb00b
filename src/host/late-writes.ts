import { readFileSync } from 'node:fs'
import { messageOf } from '../lib/errors.ts'

const setting = 'net.ipv4.tcp_orphan_retries'
const file = `/proc/sys/${setting.replaceAll('.', '/')}`

/**
 * Why what a killed QEMU had handed to the kernel may reach an NBD server much later: the kernel goes on sending for a
 * process that is gone, for some 100 s where nothing else is set (ip-sysctl.rst, tcp_orphan_retries: 0 means 8), and
 * a network that heals meanwhile delivers it. With 1 it gives up at its next try.
 * @returns undefined where it gives up at once
 */
export function lateWrites(read: () => string = () => readFileSync(file, 'utf8')): string | undefined {
  const advice = `set it: sysctl -w ${setting}=1, and in /etc/sysctl.d`
  try {
    const value = read().trim()
    if (value === '1') return undefined
    return `this host may send writes of a QEMU that was killed for minutes (${setting} is ${value}); ${advice}`
  } catch (error) {
    return `${setting} of this host can't be read: ${messageOf(error)}; ${advice}`
  }
}
