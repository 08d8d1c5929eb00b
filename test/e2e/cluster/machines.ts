import { resolve } from 'node:path'
import { quickWords, tiny } from '../lab.ts'

type Json = Readonly<Record<string, unknown>>

/**
 * Interrupts by ACPI and IOAPIC can be left out here, too: of the 6.5 s of processor time that a boot takes under TCG
 * all that saves a third. Power buttons still work.
 */
const quickBoot = `${quickWords} acpi=noirq noapic`

const failover = { recovery: { onHostLoss: 'Failover' } }

/** The smallest machine, which may be started elsewhere when its host is lost. */
export const small = (name: string, spec: Json = {}): Json => tiny(name, { ...failover, ...spec })

/** The smallest machine, which waits for its host. */
export const manual = (name: string, spec: Json = {}): Json => tiny(name, spec)

/** A Linux guest that writes to its disk on the shared directory each second, and then says so; see beats.ts. */
export function beating(name: string, spec: Json = {}): Json {
  const file = (word: string) => resolve('.cache/guest', word)
  const cmdline = `console=ttyS0 quiet plasmavmc.do=beat ${quickBoot}`
  return tiny(name, {
    ...{ memory: '128Mi', ...failover },
    kernel: { image: file('vmlinux'), initrd: file('initrd.img'), cmdline },
    disks: [{ name: 'data', size: '16Mi', format: 'raw', pool: 'shared' }],
    ...spec,
  })
}
