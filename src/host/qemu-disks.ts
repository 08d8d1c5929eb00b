import { createHash } from 'node:crypto'
import { PlasmaError } from '../lib/errors.ts'
import type { Nbd } from '../resources/nbd.ts'
import type { VmDisk, VmSpec } from '../resources/vm.ts'
import { type Buses, pciAddress, pciSlots } from './qemu-buses.ts'
import { optionList } from './qemu-options.ts'

type BlockNode = Readonly<Record<string, unknown>> & { readonly 'node-name': string }

export type Drive = Pick<
  VmDisk,
  'name' | 'format' | 'bus' | 'cache' | 'readOnly' | 'bootOrder' | 'serial' | 'nbd'
>

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

const longestNodeName = 31

/**
 * Names of a disk's two block nodes, by its name alone: a disk that is added or removed renames no other. QEMU takes
 * at most 31 characters, so longer ones become a digest, under a prefix of its own.
 */
export function nodeNames(disk: string): { readonly format: string; readonly file: string } {
  if (`disk-${disk}`.length <= longestNodeName) return { format: `disk-${disk}`, file: `file-${disk}` }
  const digest = createHash('sha256').update(disk).digest('hex').slice(0, 16)
  return { format: `diskh-${digest}`, file: `fileh-${digest}` }
}

/** Seconds for which a guest's requests wait for an NBD server that went away; after that they fail, and QEMU holds it. */
const reconnectDelay = 10
/** Seconds for which QEMU tries to open an export. */
const openTimeout = 10

/** An export of an NBD server. It has no locks: that nobody else writes to it is made sure of before. */
function exportNode({ host, port, exportName }: Nbd) {
  return {
    driver: 'nbd',
    server: { type: 'inet', host, port: String(port) },
    export: exportName,
    'reconnect-delay': reconnectDelay,
    'open-timeout': openTimeout,
  }
}

/** The two nodes of a disk as `blockdev-add` takes them, the file's first; a drive over NBD has no path. */
export function blockNodes(drive: Drive, path: string): readonly [BlockNode, BlockNode] {
  const { direct, noFlush } = cacheModes[drive.cache]
  const node = nodeNames(drive.name)
  const common = {
    'read-only': drive.readOnly,
    cache: { direct, 'no-flush': noFlush },
    discard: 'unmap',
  }
  const file = {
    driver: protocolOf(path),
    filename: path,
    // Two QEMUs writing one image destroy it: no lock, no start. A reader locks where the file system can.
    locking: drive.readOnly ? 'auto' : 'on',
  }
  const { driver, ...at } = drive.nbd ? exportNode(drive.nbd) : file
  return [
    { driver, 'node-name': node.file, ...at, ...common },
    { driver: drive.format, 'node-name': node.format, file: node.file, ...common },
  ]
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

/** Members of a disk's device that do not depend on where it is plugged in. */
function deviceMembers(drive: Drive, boot?: number) {
  return {
    id: diskDeviceId(drive.name),
    drive: nodeNames(drive.name).format,
    serial: drive.serial ?? drive.name.slice(0, 20),
    bootindex: boot,
    'write-cache': cacheModes[drive.cache].writeCache,
    werror: 'stop',
    rerror: 'stop',
  }
}

/** The id of a disk's device. */
export function diskDeviceId(disk: string): string {
  return `disk-${disk}`
}

function device(
  drive: Drive,
  place: { onBus: number; ofBus: number; boot?: number | undefined },
  buses: Buses,
): string {
  const members = deviceMembers(drive, place.boot)
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
 * `-blockdev` and `-device` of every disk, and of the cloud-init seed.
 * @throws PlasmaError `DiskMissing`
 */
export function diskArgs(spec: VmSpec, disks: ReadonlyMap<string, string>, buses: Buses): string[] {
  const drives: readonly Drive[] = spec.cloudInit ? [...spec.disks, seed] : spec.disks
  const boot = bootIndexes(drives)
  const args = drives.flatMap((drive) => {
    const sameBus = drives.filter((other) => other.bus === drive.bus)
    const place = { onBus: sameBus.indexOf(drive), ofBus: sameBus.length, boot: boot.get(drive.name) }
    const nodes = blockNodes(drive, pathOf(disks, drive.name))
    return [
      // JSON has no quoting rules of its own, whatever the path.
      ...nodes.flatMap((node) => ['-blockdev', JSON.stringify(node)]),
      ...['-device', device(drive, place, buses)],
    ]
  })
  return [...controllers(drives, buses), ...args]
}

/**
 * The device of a disk that is added to a running machine, as `device_add` takes it: on a free port (`bus`) where it
 * is virtio, on the SCSI controller otherwise.
 */
export function addedDiskDevice(drive: Drive, bus: string): Readonly<Record<string, unknown>> {
  const driver = drive.bus === 'scsi' ? 'scsi-hd' : 'virtio-blk-pci'
  const { bootindex: _none, 'write-cache': writeCache, ...members } = deviceMembers(drive)
  return { driver, bus, ...members, 'write-cache': writeCache ? 'on' : 'off' }
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
