import { access, copyFile, writeFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { errnoOf, inField, PlasmaError } from '../lib/errors.ts'
import { makeFolders, whyFolder } from '../lib/folders.ts'
import { formatQuantity } from '../resources/quantity.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { seedImage } from './cloud-init.ts'
import { baseOf } from './disk-base.ts'
import { type DiskItem, wantedBytes } from './disk-layout.ts'
import { makeNew, makeWhole } from './durable-files.ts'
import { type Images, isUrl } from './images.ts'
import type { PoolSpace } from './pools.ts'
import {
  convertToRaw,
  createBlank,
  createOverlay,
  grow,
  imageInfo,
  virtualSize,
  wholeSectors,
} from './qemu-img.ts'
import type { Slots } from './slots.ts'

type Made = Extract<DiskItem, { kind: 'disk' }>
/** What is made, and lies in a folder that may have to be made too. */
type Makable = Extract<DiskItem, { kind: 'disk' | 'seed' | 'variables' }>

export interface MakeContext {
  readonly vm: VirtualMachine
  readonly images: Images
  readonly space: PoolSpace
  /** For work of a moment, and for copies, which may take hours and must not hold it up. */
  readonly slots: { readonly quick: Slots; readonly copies: Slots }
  readonly signal: AbortSignal
  /** Whole percents of a download or a copy. */
  readonly onPercent: (percent: number) => void
}

/** Whether an item is made; the others are only looked at. */
export function isMakable(item: DiskItem): item is Makable {
  return item.kind === 'disk' || item.kind === 'seed' || item.kind === 'variables'
}

/** Variable stores as distributions ship them; the bigger kind first, as it is the one still maintained. */
const variableTemplates = [
  '/usr/share/OVMF/OVMF_VARS_4M.fd',
  '/usr/share/edk2/x64/OVMF_VARS.4m.fd',
  '/usr/share/OVMF/OVMF_VARS.fd',
  '/usr/share/edk2/ovmf/OVMF_VARS.fd',
  '/usr/share/edk2-ovmf/x64/OVMF_VARS.fd',
]

/** @param before a store of the same machine in another place, which is then gone on with */
async function copyVariables(to: string, before: string | undefined): Promise<void> {
  for (const template of [...(before === undefined ? [] : [before]), ...variableTemplates]) {
    const there = await access(template).then(
      () => true,
      () => false,
    )
    if (there) return copyFile(template, to)
  }
  throw new PlasmaError('FirmwareMissing', 'spec.firmware: this host has no OVMF variable store', {
    hint: 'install OVMF (Debian: apt install ovmf)',
  })
}

async function makeBlank(item: Made, { slots, signal }: MakeContext): Promise<Plan> {
  const bytes = wantedBytes(item.disk)
  if (bytes === undefined)
    throw new PlasmaError('SizeMissing', `${item.field}.size: a blank disk needs a size`)
  const { format } = item.disk
  return {
    bytes,
    write: (part) => slots.quick.use(signal, () => createBlank(part, format, bytes, signal)),
  }
}

/** How big a disk will be, and what writes it into a file. */
interface Plan {
  readonly bytes: number
  readonly write: (part: string) => Promise<void>
}

async function makeFromImage(item: Made, context: MakeContext): Promise<Plan> {
  const { disk, field } = item
  const { signal, onPercent, slots } = context
  const path = await context.images.obtain(disk.image!, `${field}.image`, signal, onPercent)
  const base = { path, ...(await slots.quick.use(signal, () => imageInfo(path, signal))) }
  const bytes = wantedBytes(disk) ?? wholeSectors(base.virtualBytes)
  if (bytes < base.virtualBytes) {
    const [size, least] = [formatQuantity(bytes), formatQuantity(base.virtualBytes)]
    throw new PlasmaError('SizeTooSmall', `${field}.size: ${size} is less than the image's ${least}`)
  }
  if (disk.format === 'qcow2')
    return { bytes, write: (part) => slots.quick.use(signal, () => createOverlay(part, base, bytes, signal)) }
  const copy = async (part: string) => {
    await convertToRaw(base, part, signal, onPercent)
    if (bytes > base.virtualBytes) await grow(part, 'raw', bytes, signal)
  }
  return { bytes, write: (part) => slots.copies.use(signal, () => copy(part)) }
}

async function makeDisk(item: Made, exists: boolean, context: MakeContext): Promise<void> {
  const { disk, path, pool, field } = item
  if (exists) return growDisk(item, context)
  const { bytes, write } = await (disk.image ? makeFromImage : makeBlank)(item, context)
  const done = await context.space.promise(pool, bytes, `${field}.size`)
  try {
    await makeNew(path, write)
  } finally {
    done()
  }
}

/** A download that a disk stands on may have been removed from the cache: it is had again. */
async function restoreDownload(item: Made, context: MakeContext): Promise<void> {
  const { disk, field } = item
  if (!disk.image || !isUrl(disk.image.source)) return
  const base = await baseOf(item)
  if (base === undefined || basename(base) !== disk.image.sha256) return
  await context.images.obtain(disk.image, `${field}.image`, context.signal, context.onPercent)
}

async function growDisk(item: Made, context: MakeContext): Promise<void> {
  const { signal, slots, space } = context
  const { disk, path, pool, field } = item
  await restoreDownload(item, context)
  const bytes = wantedBytes(disk)
  const has = await virtualSize(path, disk.format)
  if (bytes === undefined || bytes <= has) return
  const done = await space.promise(pool, bytes - has, `${field}.size`)
  try {
    await slots.quick.use(signal, () => grow(path, disk.format, bytes, signal))
  } finally {
    done()
  }
}

/**
 * Makes one file of a machine, or grows it where it `exists`. An existing disk's content is never replaced.
 * @throws PlasmaError naming the spec's field; nothing half made is left
 */
export async function make(item: Makable, exists: boolean, context: MakeContext): Promise<void> {
  await makeParent(item)
  try {
    switch (item.kind) {
      case 'disk':
        return await makeDisk(item, exists, context)
      case 'seed':
        return await makeWhole(item.path, (part) => writeFile(part, seedImage(context.vm), { mode: 0o600 }))
      case 'variables':
        return await makeNew(item.path, (part) => copyVariables(part, item.before))
    }
  } catch (error) {
    if (context.signal.aborted) throw error
    if (errnoOf(error) !== 'ENOSPC') throw inField(item.field, error)
    throw new PlasmaError('NoSpace', `${item.field}: no space is left for ${item.path}`, {
      hint: 'free space; it is tried again',
      cause: error,
    })
  }
}

async function makeParent(item: Makable): Promise<void> {
  try {
    await makeFolders(dirname(item.path))
  } catch (error) {
    const [field, what] =
      item.kind === 'disk'
        ? [`${item.field}.pool`, `pool ${item.pool.name} (${item.pool.path})`]
        : [item.field, dirname(item.path)]
    throw new PlasmaError('PoolUnusable', `${field}: ${what} can't be used: ${whyFolder(error)}`, {
      hint: 'make it a folder that the server may write to, or name another pool',
      cause: error,
    })
  }
}
