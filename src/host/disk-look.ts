import { readFile, stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { adviceOf, errnoOf } from '../lib/errors.ts'
import { formatQuantity } from '../resources/quantity.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { seedImage } from './cloud-init.ts'
import { type BaseMark, baseOf, isNamedBySum, requireBase } from './disk-base.ts'
import { type DiskItem, wantedBytes } from './disk-layout.ts'
import { type OffLimits, requireChain, requireFile, requireImage } from './host-files.ts'
import { isUrl } from './images.ts'
import type { KnownExports } from './nbd-exports.ts'
import type { DiskState } from './ports.ts'
import { virtualSize } from './qemu-img.ts'

/** What a look needs to know besides the disk. */
export interface LookContext {
  readonly vm: VirtualMachine
  readonly limits: OffLimits
  /** Paths of the disks that were made for the machine, by name; asked only where one is not there. */
  readonly made: () => Promise<ReadonlyMap<string, string>>
  /** The images that they were made on, by name of the disk. */
  readonly bases: () => Promise<ReadonlyMap<string, BaseMark>>
  /** What is known of the machine's exports. */
  readonly exports: KnownExports
}

type Given = Extract<DiskItem, { kind: 'given' }>
type Made = Extract<DiskItem, { kind: 'disk' }>

async function exists(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false
    throw error
  }
}

/**
 * Where a disk was made, as the machine's status tells: what another host made, this one has no record of. Status keeps
 * the path as long as the disk is declared, whatever becomes of it.
 */
function toldPath({ metadata, status }: VirtualMachine, name: string): string | undefined {
  const path = status?.disks.find((disk) => disk.name === name)?.path
  // Only what was made for the machine lies in a folder of its own; an export may have any name.
  return path?.startsWith('/') && basename(dirname(path)) === metadata.uid ? path : undefined
}

/** One that was made once and is not there is lost: an empty one in its place would be worse than no start. */
async function lookAtMissing({ name, path, field }: Made, { vm, made }: LookContext): Promise<DiskState> {
  const before = (await made()).get(name) ?? toldPath(vm, name)
  if (before === undefined) return { name, state: 'absent' }
  const what =
    before === path
      ? `it was made as ${path} and is not there: mount its file system or bring the file back`
      : `it was made as ${before}: pool and format of a disk stay as they were`
  const message = `${field}: ${what}; for a new disk take another name`
  return { name, state: 'failed', message }
}

/** Whether the image that a disk stands on is a download that can be had again. */
async function isDownloadGone(base: string, { disk: { image } }: Made): Promise<boolean> {
  const isTheSame = isNamedBySum(base) && image?.sha256 === basename(base) && isUrl(image.source)
  return isTheSame && !(await exists(base))
}

async function lookAtDisk(item: Made, context: LookContext): Promise<DiskState> {
  const { name, path, field, disk } = item
  if (!(await exists(path))) return lookAtMissing(item, context)
  const [has, wants] = [await virtualSize(path, disk.format), wantedBytes(disk)]
  const size = formatQuantity(has)
  const base = await baseOf(item)
  if (base !== undefined && (await isDownloadGone(base, item))) return { name, path, size, state: 'absent' }
  if (base !== undefined) await requireBase(base, field, (await context.bases()).get(name))
  if (wants === undefined || has === wants) return { name, path, size, state: 'ready' }
  const sizes = `${size} to ${formatQuantity(wants)}`
  if (has < wants)
    return { name, path, size, state: 'absent', message: `grows from ${sizes} before the next start` }
  const message = `${field}.size: the disk would shrink from ${sizes} and lose data; set it to ${size}`
  return { name, path, size, state: 'failed', message }
}

async function lookAtSeed(name: string, path: string, vm: VirtualMachine): Promise<DiskState> {
  const wanted = seedImage(vm)
  const found = (await exists(path)) ? await stat(path) : undefined
  // Another length is another content: then nothing needs to be read.
  const same = found?.size === wanted.length && wanted.equals(await readFile(path))
  return same ? { name, path, state: 'ready' } : { name, state: 'absent' }
}

async function lookAtGiven({ name, path, field, disk }: Given, { limits }: LookContext): Promise<DiskState> {
  await requireFile(path, field, disk.readOnly ? 'read' : 'write', limits)
  if (disk.format === 'qcow2') await requireChain(path, field, limits)
  return { name, path, state: 'ready' }
}

async function lookAt(item: DiskItem, context: LookContext): Promise<DiskState> {
  const { name } = item
  switch (item.kind) {
    case 'impossible':
      return { name, state: 'failed', message: item.message }
    case 'given':
      return lookAtGiven(item, context)
    case 'export':
      return context.exports.look(item)
    case 'boot':
      return { name, state: 'ready', path: await requireImage(item.source, item.field, context.limits) }
    case 'disk':
      return lookAtDisk(item, context)
    case 'seed':
      return lookAtSeed(name, item.path, context.vm)
    case 'variables':
      return (await exists(item.path)) ? { name, path: item.path, state: 'ready' } : { name, state: 'absent' }
  }
}

/** How one file of a machine is right now. Starts no process, changes nothing, never rejects. */
export async function look(item: DiskItem, context: LookContext): Promise<DiskState> {
  const state = await lookAt(item, context).catch((error: unknown): DiskState => {
    return { name: item.name, state: 'failed', message: adviceOf(error) }
  })
  const path = toldPath(context.vm, item.name)
  return state.state === 'failed' && path !== undefined ? { path, ...state } : state
}
