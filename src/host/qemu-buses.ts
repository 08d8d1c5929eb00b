import type { VmSpec } from '../resources/vm.ts'
import { optionList } from './qemu-options.ts'

type Members = Readonly<Record<string, string | number | boolean | undefined>>

/**
 * Fixed PCI slots, so that a guest finds its devices where they were after one is added or removed. Slots 1 and 2
 * stay free for what the board itself and its graphics card take.
 */
export const pciSlots = {
  serial: 0x03,
  rng: 0x04,
  balloon: 0x05,
  watchdog: 0x06,
  scsi: 0x07,
  usb: 0x08,
  sata: 0x09,
  networks: 0x0b,
  disks: 0x13,
  ports: 0x1b,
} as const

/**
 * Ports that a q35 keeps free for devices added while it runs: its root bus takes none after the start. Each
 * costs a small guest about 2 % of its boot under TCG and 4 KiB of the firmware's 64 KiB of I/O windows, so they are few.
 * A pc plugs into its root bus; a microvm has nothing of the kind.
 */
export const hotplugPorts: readonly string[] = Array.from({ length: 4 }, (_, i) => `hotplug${i}`)

export function hotplugArgs(machine: VmSpec['machine']): string[] {
  if (machine !== 'q35') return []
  return hotplugPorts.flatMap((id, i) => {
    const addr = `0x${pciSlots.ports.toString(16)}.${i}`
    const members = { id, port: i, chassis: i + 1, addr, multifunction: i === 0 ? true : undefined }
    return ['-device', optionList('pcie-root-port', members)]
  })
}

/** Slots in a row that `networks` and `disks` have before a second function of each is used. */
const slotsInRow = 8

/**
 * Address of the index-th of `count` like devices: a slot each for the first eight, then their further functions.
 * The multifunction bit is set only where it is needed, because guests name network cards by it.
 */
export function pciAddress(base: number, index: number, count: number): Members {
  const slot = base + (index % slotsInRow)
  const fn = Math.floor(index / slotsInRow)
  const shared = count > slotsInRow
  return {
    addr: `0x${slot.toString(16)}${shared ? `.${fn}` : ''}`,
    multifunction: shared && fn === 0 ? true : undefined,
  }
}

/** How devices are plugged in: PCI on pc and q35, virtio-mmio (and PCI where a device has no other way) on microvm. */
export interface Buses {
  /** A virtio device (`blk`, `net`, …) at a PCI address, or on the next virtio-mmio transport. */
  virtio(kind: string, address: Members, members: Members): string
  /** A device that exists for PCI only. */
  pci(driver: string, address: Members, members: Members): string
}

export function busesOf(machine: VmSpec['machine']): Buses {
  const pci: Buses['pci'] = (driver, address, members) => optionList(driver, { ...members, ...address })
  if (machine !== 'microvm') {
    return { pci, virtio: (kind, address, members) => pci(`virtio-${kind}-pci`, address, members) }
  }
  return {
    pci,
    // Left to QEMU, which takes transports from the last one down: guests number devices in that order too.
    virtio: (kind, _address, members) => optionList(`virtio-${kind}-device`, members),
  }
}

/** Whether a microvm needs its PCI Express root: for devices that have no virtio-mmio form. */
export function needsPci(spec: VmSpec): boolean {
  return (
    spec.devices.vnc ||
    spec.devices.watchdog !== undefined ||
    spec.disks.some((disk) => disk.bus === 'sata' || disk.bus === 'usb') ||
    spec.networks.some((network) => network.model !== 'virtio')
  )
}
