import { access, copyFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errnoOf, inField, PlasmaError } from '../lib/errors.ts'
import { makeFolders, whyFolder } from '../lib/folders.ts'
import { formatQuantity } from '../resources/quantity.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { seedImage } from './cloud-init.ts'
import { type DiskItem, wantedBytes } from './disk-layout.ts'
import { makeWhole } from './durable-files.ts'
import type { Images } from './images.ts'
import { requireSpace } from './pools.ts'
import {
  convertToRaw,
  createBlank,
  createOverlay,
  grow,
  imageInfo,
  virtualSize,
  wholeSectors,
} from './qemu-img.ts'

type Made = Extract<DiskItem, { kind: 'disk' }>

export interface MakeContext {
  readonly vm: VirtualMachine
  readonly images: Images
  readonly signal: AbortSignal
  /** Whole percents of a download or a copy. */
  readonly onPercent: (percent: number) => void
}

/** Variable stores as distributions ship them; the bigger kind first, as it is the one still maintained. */
const variableTemplates = [
  '/usr/share/OVMF/OVMF_VARS_4M.fd',
  '/usr/share/edk2/x64/OVMF_VARS.4m.fd',
  '/usr/share/OVMF/OVMF_VARS.fd',
  '/usr/share/edk2/ovmf/OVMF_VARS.fd',
  '/usr/share/edk2-ovmf/x64/OVMF_VARS.fd',
]

async function copyVariables(to: string): Promise<void> {
  for (const template of variableTemplates) {
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

async function makeBlank(item: Made, part: string, { signal }: MakeContext): Promise<void> {
  const bytes = wantedBytes(item.disk)
  if (bytes === undefined)
    throw new PlasmaError('SizeMissing', `${item.field}.size: a blank disk needs a size`)
  await requireSpace(item.pool, bytes, `${item.field}.size`)
  await createBlank(part, item.disk.format, bytes, signal)
}

async function makeFromImage(item: Made, part: string, context: MakeContext): Promise<void> {
  const { disk, field, pool } = item
  const { signal, onPercent } = context
  const path = await context.images.obtain(disk.image!, `${field}.image`, signal, onPercent)
  const base = { path, ...(await imageInfo(path, signal)) }
  const bytes = wantedBytes(disk) ?? wholeSectors(base.virtualBytes)
  if (bytes < base.virtualBytes) {
    const [size, least] = [formatQuantity(bytes), formatQuantity(base.virtualBytes)]
    throw new PlasmaError('SizeTooSmall', `${field}.size: ${size} is less than the image's ${least}`)
  }
  await requireSpace(pool, bytes, `${field}.size`)
  if (disk.format === 'qcow2') return createOverlay(part, base, bytes, signal)
  await convertToRaw(base, part, signal, onPercent)
  if (bytes > base.virtualBytes) await grow(part, 'raw', bytes, signal)
}

async function makeDisk(item: Made, exists: boolean, context: MakeContext): Promise<void> {
  const { disk, path, pool, field } = item
  if (!exists) return makeWhole(path, (part) => (disk.image ? makeFromImage : makeBlank)(item, part, context))
  const bytes = wantedBytes(disk)
  const has = await virtualSize(path, disk.format)
  if (bytes === undefined || bytes <= has) return
  await requireSpace(pool, bytes - has, `${field}.size`)
  await grow(path, disk.format, bytes, context.signal)
}

/**
 * Makes one file of a machine, or grows it where it `exists`. An existing disk's content is never replaced.
 * @throws PlasmaError naming the spec's field; nothing half made is left
 */
export async function make(item: DiskItem, exists: boolean, context: MakeContext): Promise<void> {
  if (item.kind === 'given' || item.kind === 'impossible') return
  await makeParent(item)
  try {
    switch (item.kind) {
      case 'disk':
        return await makeDisk(item, exists, context)
      case 'seed':
        return await makeWhole(item.path, (part) => writeFile(part, seedImage(context.vm), { mode: 0o600 }))
      case 'variables':
        return await makeWhole(item.path, copyVariables)
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

async function makeParent(item: Exclude<DiskItem, { kind: 'given' | 'impossible' }>): Promise<void> {
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
