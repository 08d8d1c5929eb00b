import { dirname, join } from 'node:path'
import { PlasmaError } from '../lib/errors.ts'
import { type Nbd, nbdUrl } from '../resources/nbd.ts'
import { bytesOf } from '../resources/quantity.ts'
import type { VirtualMachine, VmDisk } from '../resources/vm.ts'
import { imagePath, type OffLimits } from './host-files.ts'
import { defaultPool, type Pool, poolNamed } from './pools.ts'
import { wholeSectors } from './qemu-img.ts'

/** A file a machine needs, where it belongs, and the spec's field that asks for it. */
export type DiskItem = { readonly name: string; readonly field: string } & (
  | { readonly kind: 'given'; readonly path: string; readonly disk: VmDisk }
  | { readonly kind: 'export'; readonly path: string; readonly nbd: Nbd; readonly readOnly: boolean }
  | { readonly kind: 'boot'; readonly path: string; readonly source: string }
  | { readonly kind: 'disk'; readonly path: string; readonly pool: Pool; readonly disk: VmDisk }
  | { readonly kind: 'seed'; readonly path: string }
  /** `before` is where it lay while no disk of the machine was in a shared pool. */
  | { readonly kind: 'variables'; readonly path: string; readonly before?: string }
  | { readonly kind: 'impossible'; readonly message: string }
)

export interface Places {
  readonly imageDir: string
  readonly dataDir: string
  readonly pools: readonly Pool[]
}

const uidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
/** In the machine's folder in the default directory. */
export const seedFile = 'cloud-init.iso'
const reserved = ['cloud-init', 'efi-vars', 'efi-code', 'kernel', 'initrd']

/** What of this host no machine may be given. */
export function offLimits({ dataDir, imageDir, pools }: Places): OffLimits {
  const folders = [...pools.map((pool) => pool.path), defaultPool(dataDir).path]
  return { dataDir, imageDir, pools: [...new Set(folders)] }
}

/** The uid of a machine, fit to be a directory name. @throws PlasmaError `BadUid` */
export function uidOf(vm: VirtualMachine): string {
  const { uid } = vm.metadata
  if (uid !== undefined && uidPattern.test(uid)) return uid
  throw new PlasmaError('BadUid', `metadata.uid: ${JSON.stringify(uid)} is not a lower-case UUID`)
}

/** The size a disk is asked to have, in bytes, whole sectors; undefined where its image decides. */
export function wantedBytes(disk: VmDisk): number | undefined {
  return disk.size === undefined ? undefined : wholeSectors(bytesOf(disk.size))
}

function diskItem(disk: VmDisk, index: number, uid: string, places: Places): DiskItem {
  const field = `spec.disks[${index}]`
  const { name } = disk
  if (reserved.includes(name))
    return { kind: 'impossible', name, field, message: `${field}.name: ${name} is reserved; choose another` }
  if (disk.path !== undefined) return { kind: 'given', name, field: `${field}.path`, path: disk.path, disk }
  const { nbd, readOnly } = disk
  if (nbd) return { kind: 'export', name, field: `${field}.nbd`, path: nbdUrl(nbd), nbd, readOnly }
  const pool = poolNamed(places.pools, disk.pool, places.dataDir)
  if (pool)
    return { kind: 'disk', name, field, pool, disk, path: join(pool.path, uid, `${name}.${disk.format}`) }
  return {
    kind: 'impossible',
    name,
    field,
    message: `${field}.pool: there is no StoragePool ${disk.pool}; see 'plasmavmc get storagepools'`,
  }
}

function hostFile(name: string, source: string, field: string, imageDir: string): DiskItem {
  try {
    return { kind: 'boot', name, field, source, path: imagePath(imageDir, source, field) }
  } catch (error) {
    return { kind: 'impossible', name, field, message: (error as Error).message }
  }
}

/** Directories that may hold what was made for a uid: one in every pool. */
export function ownDirs(vm: VirtualMachine, places: Places): readonly string[] {
  const uid = uidOf(vm)
  return offLimits(places).pools.map((pool) => join(pool, uid))
}

/** UEFI variables go with a machine that other hosts can start: they lie beside its first disk in a shared pool. */
function variablesItem(items: readonly DiskItem[], own: string): DiskItem {
  const file = 'efi-vars.fd'
  const base = { kind: 'variables', name: 'efi-vars', field: 'spec.firmware' } as const
  const first = items.find((item) => item.kind === 'disk' && item.pool.shared)
  if (first?.kind !== 'disk') return { ...base, path: join(own, file) }
  return { ...base, path: join(dirname(first.path), file), before: join(own, file) }
}

/**
 * Everything on disk that a machine needs, in the order of its spec. The seed lies in the default directory whatever the
 * pools: each host makes its own.
 * @throws PlasmaError `BadUid`
 */
export function layout(vm: VirtualMachine, places: Places): readonly DiskItem[] {
  const uid = uidOf(vm)
  const { spec } = vm
  const own = join(places.dataDir, 'disks', uid)
  const items = spec.disks.map((disk, index) => diskItem(disk, index, uid, places))
  if (spec.cloudInit)
    items.push({
      kind: 'seed',
      name: 'cloud-init',
      field: 'spec.cloudInit',
      path: join(own, seedFile),
    })
  if (spec.firmware === 'uefi') items.push(variablesItem(items, own))
  if (spec.kernel) {
    const { image, initrd } = spec.kernel
    items.push(hostFile('kernel', image, 'spec.kernel.image', places.imageDir))
    if (initrd !== undefined) items.push(hostFile('initrd', initrd, 'spec.kernel.initrd', places.imageDir))
  }
  // A disk by a reserved name comes first, and is what is told of: status has each name once.
  return items.filter((item, index) => items.findIndex(({ name }) => name === item.name) === index)
}
