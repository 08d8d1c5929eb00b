import { access, constants, realpath, stat } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'
import { blockDeviceUse, fileUse } from './in-use.ts'
import { qcow2Header } from './qcow2.ts'

/** What no machine may be given. */
export interface OffLimits {
  readonly dataDir: string
  readonly imageDir: string
  /** Folders of the pools. */
  readonly pools: readonly string[]
}

export type Use = 'read' | 'write'

const longestChain = 16
const systemFolders = ['/etc', '/proc', '/sys', '/dev']
const systemForWriting = ['/boot', '/usr', '/bin', '/sbin', '/lib', '/lib64']
const uidFolder = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\//

function isIn(path: string, folder: string): boolean {
  const inside = relative(folder, path)
  return inside !== '..' && !inside.startsWith('../')
}

/** The path without links; as it is where it (still) does not exist. */
function real(path: string): Promise<string> {
  return realpath(path).catch(() => path)
}

async function reasonAgainst(path: string, use: Use, limits: OffLimits): Promise<string | undefined> {
  for (const pool of limits.pools) {
    const uid = uidFolder.exec(relative(await real(pool), path))?.[1]
    if (uid !== undefined) return `it belongs to the machine ${uid}`
  }
  const [dataDir, imageDir] = await Promise.all([real(limits.dataDir), real(limits.imageDir)])
  const free = [imageDir, join(dataDir, 'images'), join(dataDir, 'disks')]
  if (isIn(path, dataDir) && !free.some((folder) => isIn(path, folder)))
    return 'it belongs to PlasmaVMC itself'
  if (use === 'write' && isIn(path, join(dataDir, 'images', 'cache'))) return 'disks of machines stand on it'
  const folders = use === 'write' ? [...systemFolders, ...systemForWriting] : systemFolders
  const found = await stat(path)
  if (!found.isBlockDevice()) {
    const folder = folders.find((name) => isIn(path, name) && !isIn(path, '/dev/shm'))
    if (folder !== undefined) return `files in ${folder} belong to the system`
    return use === 'write' ? fileUse(path) : undefined
  }
  return use === 'write' ? blockDeviceUse(path, found.rdev) : undefined
}

async function checkFile(path: string, field: string): Promise<void> {
  try {
    const found = await stat(path)
    if (!found.isFile() && !found.isBlockDevice())
      throw new PlasmaError('FileUnreadable', `${field}: ${path} is neither a file nor a block device`)
    await access(path, constants.R_OK)
  } catch (error) {
    if (error instanceof PlasmaError) throw error
    if (errnoOf(error) === 'ENOENT')
      throw new PlasmaError('FileMissing', `${field}: ${path} does not exist on this host`)
    throw new PlasmaError('FileUnreadable', `${field}: ${path} cannot be read: ${whyFile(error)}`)
  }
}

/**
 * Checks that a file of the host that a spec names is there and may be given to a machine: not what belongs to
 * PlasmaVMC, to another machine, or to the system; links are followed first.
 * @throws PlasmaError `FileMissing`, `FileUnreadable`, `FileOffLimits` naming the field
 */
export async function requireFile(path: string, field: string, use: Use, limits: OffLimits): Promise<void> {
  await checkFile(path, field)
  const target = await realpath(path)
  const why = await reasonAgainst(target, use, limits)
  if (why === undefined) return
  const name = target === path ? path : `${path} (${target})`
  throw new PlasmaError('FileOffLimits', `${field}: ${name} can't be given to a machine: ${why}`, {
    hint: 'copy what is needed into the image folder or a folder of its own',
  })
}

/**
 * The path of a file of the host that a spec names; relative ones lie in the image folder and may not leave it.
 * @throws PlasmaError `OutsideImageDir`
 */
export function imagePath(imageDir: string, source: string, field: string): string {
  if (isAbsolute(source)) return resolve(source)
  const path = resolve(imageDir, source)
  if (path === resolve(imageDir) || !isIn(path, resolve(imageDir))) throw outside(imageDir, source, field)
  return path
}

function outside(imageDir: string, source: string, field: string): PlasmaError {
  return new PlasmaError('OutsideImageDir', `${field}: ${source} leads out of the image folder ${imageDir}`)
}

/**
 * As `requireFile`, for a source as it stands in a spec: a relative one may not leave the image folder by a link either.
 * @returns its path
 * @throws PlasmaError those of `imagePath` and `requireFile`
 */
export async function requireImage(source: string, field: string, limits: OffLimits): Promise<string> {
  const path = imagePath(limits.imageDir, source, field)
  await requireFile(path, field, 'read', limits)
  const inside = isAbsolute(source) || isIn(await realpath(path), await real(limits.imageDir))
  if (!inside) throw outside(limits.imageDir, source, field)
  return path
}

/**
 * Checks that an existing qcow2 image, which a user could have written, leads only to files that may be read: its
 * backing file is named as a plain path with its format, and so on down the chain.
 * @throws PlasmaError `NotQcow2`, `ImageRefersElsewhere`, and those of `requireFile`
 */
export async function requireChain(path: string, field: string, limits: OffLimits): Promise<void> {
  let at = path
  for (let depth = 0; depth < longestChain; depth++) {
    const next = await backingOf(at, field)
    if (next === undefined) return
    await requireFile(next.path, field, 'read', limits)
    if (next.format === 'raw') return
    at = next.path
  }
  throw new PlasmaError(
    'ImageRefersElsewhere',
    `${field}: ${path} has more than ${longestChain} backing files`,
  )
}

async function backingOf(path: string, field: string) {
  const header = await qcow2Header(path).catch((error: unknown) => {
    if (!(error instanceof PlasmaError)) throw error
    throw new PlasmaError(error.code, `${field}: ${path} can't be used: ${error.message}`, { cause: error })
  })
  const refuse = (why: string, hint: string) =>
    new PlasmaError('ImageRefersElsewhere', `${field}: ${path} ${why}`, { hint })
  if (header.externalData)
    throw refuse('keeps its data in another file', `qemu-img convert -O qcow2 ${path} <new image>`)
  if (!header.backing) return undefined
  const { name, format } = header.backing
  // What stands before a colon names a protocol of QEMU: json:, nbd:, ssh:, …
  if (/^[^/]*:/.test(name))
    throw refuse(`stands on ${JSON.stringify(name)}, which is no file`, 'qemu-img rebase')
  if (format !== 'raw' && format !== 'qcow2')
    throw refuse(
      `does not say that its backing file ${name} is raw or qcow2`,
      `qemu-img rebase -u -F <format> -b ${name} ${path}`,
    )
  return { path: resolve(dirname(path), name), format }
}
