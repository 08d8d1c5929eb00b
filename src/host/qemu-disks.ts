import { PlasmaError } from '../lib/errors.ts'
import type { VmDisk, VmSpec } from '../resources/vm.ts'
import { type Buses, pciAddress, pciSlots } from './qemu-buses.ts'
import { optionList } from './qemu-options.ts'

type Drive = Pick<VmDisk, 'name' | 'format' | 'bus' | 'cache' | 'readOnly' | 'bootOrder' | 'serial'>

const seed: Drive = { name: 'cloud-init', format: 'raw', bus: 'virtio', cache: 'writeback', readOnly: true }

/** QEMU's own table of cache modes (qemu(1), "-drive cache="), as blockdev and device members. */
const cacheModes = {
  writeback: { direct: false, noFlush: false, writeCache: true },
  none: { direct: true, noFlush: false, writeCache: true },
  writethrough: { direct: false, noFlush: false, writeCache: false },
  directsync: { direct: true, noFlush: false, writeCache: false },
  unsafe: { direct: false, noFlush: true, writeCache: true },
} as const

const sataPorts = 6
const usbPorts = 15

/**
 * The resolved path of a disk.
 * @throws PlasmaError `DiskMissing`
 */
export function pathOf(disks: ReadonlyMap<string, string>, name: string): string {
  const path = disks.get(name)
  if (path !== undefined) return path
  throw new PlasmaError('DiskMissing', `disk ${name} has no path on this host yet`)
}

/** `file` refuses block devices and `host_device` refuses files; block devices live below /dev. */
function protocolOf(path: string): string {
  return path.startsWith('/dev/') && !path.startsWith('/dev/shm/') ? 'host_device' : 'file'
}

/** The two nodes of a disk, as JSON: no quoting rules, whatever the path. Node names have at most 31 characters. */
function blockdevs(drive: Drive, node: string, path: string): string[] {
  const { direct, noFlush } = cacheModes[drive.cache]
  const common = {
    'read-only': drive.readOnly,
    cache: { direct, 'no-flush': noFlush },
    discard: 'unmap',
  }
  const file = {
    driver: protocolOf(path),
    'node-name': `${node}-file`,
    filename: path,
    // Two QEMUs writing one image destroy it: no lock, no start. A reader locks where the file system can.
    locking: drive.readOnly ? 'auto' : 'on',
    ...common,
  }
  const format = { driver: drive.format, 'node-name': node, file: `${node}-file`, ...common }
  return ['-blockdev', JSON.stringify(file), '-blockdev', JSON.stringify(format)]
}

/** Boot places without duplicates: by bootOrder, then by place in the list; the first disk where none is given. */
function bootIndexes(drives: readonly Drive[]): ReadonlyMap<string, number> {
  const ordered = drives.filter((drive) => drive.bootOrder !== undefined)
  ordered.sort((a, b) => a.bootOrder! - b.bootOrder!)
  const chosen = ordered.length > 0 ? ordered : drives.filter((drive) => drive !== seed).slice(0, 1)
  return new Map(chosen.map((drive, index) => [drive.name, index + 1]))
}

function controllers(drives: readonly Drive[], buses: Buses): string[] {
  const count = (bus: Drive['bus']) => drives.filter((drive) => drive.bus === bus).length
  const several = (driver: string, id: string, slot: number, ports: number, total: number, extra = {}) =>
    Array.from({ length: Math.ceil(total / ports) }, (_, i) => [
      '-device',
      buses.pci(
        driver,
        { addr: `0x${(slot + (i >> 3)).toString(16)}.${i & 7}` },
        {
          id: `${id}${i}`,
          ...extra,
          multifunction: total > ports && (i & 7) === 0 ? true : undefined,
        },
      ),
    ]).flat()
  return [
    ...(count('scsi') > 0
      ? ['-device', buses.virtio('scsi', pciAddress(pciSlots.scsi, 0, 1), { id: 'scsi0' })]
      : []),
    ...several('ich9-ahci', 'sata', pciSlots.sata, sataPorts, count('sata')),
    ...several('qemu-xhci', 'usb', pciSlots.usb, usbPorts, count('usb'), { p2: usbPorts, p3: usbPorts }),
  ]
}

function device(
  drive: Drive,
  node: string,
  place: { onBus: number; ofBus: number; boot?: number | undefined },
  buses: Buses,
): string {
  const members = {
    id: `disk-${drive.name}`,
    drive: node,
    serial: drive.serial ?? drive.name.slice(0, 20),
    bootindex: place.boot,
    'write-cache': cacheModes[drive.cache].writeCache,
    werror: 'stop',
    rerror: 'stop',
  }
  const n = place.onBus
  switch (drive.bus) {
    case 'virtio':
      return buses.virtio('blk', pciAddress(pciSlots.disks, n, place.ofBus), members)
    case 'scsi':
      return optionList('scsi-hd', { ...members, bus: 'scsi0.0' })
    case 'sata': {
      const bus = `sata${Math.floor(n / sataPorts)}.${n % sataPorts}`
      // An IDE hard disk can't be read-only; a CD always is, and has no write cache or write errors.
      if (!drive.readOnly) return optionList('ide-hd', { ...members, bus })
      return optionList('ide-cd', { ...members, werror: undefined, bus })
    }
    case 'usb':
      return optionList('usb-storage', { ...members, bus: `usb${Math.floor(n / usbPorts)}.0` })
  }
}

/**
 * `-blockdev` and `-device` of every disk, and of the cloud-init seed. Device ids are `disk-<name>`, node names
 * `disk<index>`.
 * @throws PlasmaError `DiskMissing`
 */
export function diskArgs(spec: VmSpec, disks: ReadonlyMap<string, string>, buses: Buses): string[] {
  const drives: readonly Drive[] = spec.cloudInit ? [...spec.disks, seed] : spec.disks
  const boot = bootIndexes(drives)
  const args = drives.flatMap((drive, index) => {
    const sameBus = drives.filter((other) => other.bus === drive.bus)
    const place = { onBus: sameBus.indexOf(drive), ofBus: sameBus.length, boot: boot.get(drive.name) }
    const node = `disk${index}`
    return [
      ...blockdevs(drive, node, pathOf(disks, drive.name)),
      '-device',
      device(drive, node, place, buses),
    ]
  })
  return [...controllers(drives, buses), ...args]
}

/** UEFI: code that can't be written and the machine's own variables, as the board's two flash chips. */
export function firmwareArgs(spec: VmSpec, disks: ReadonlyMap<string, string>): string[] {
  if (spec.firmware !== 'uefi') return []
  const flash = (name: string, readOnly: boolean) => [
    '-blockdev',
    JSON.stringify({
      driver: 'file',
      'node-name': `${name}-file`,
      filename: pathOf(disks, name),
      locking: readOnly ? 'auto' : 'on',
      'read-only': readOnly,
    }),
    '-blockdev',
    JSON.stringify({ driver: 'raw', 'node-name': name, file: `${name}-file`, 'read-only': readOnly }),
  ]
  return [...flash('efi-code', true), ...flash('efi-vars', false)]
}
