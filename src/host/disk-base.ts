import { stat } from 'node:fs/promises'
import { basename, dirname, resolve } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'
import { qcow2Header } from './qcow2.ts'

/** An image as it was when an overlay was made on it. */
export interface BaseMark {
  readonly path: string
  readonly bytes: number
  /** When it was last written to, RFC 3339 with milliseconds. */
  readonly modified: string
}

interface Stands {
  readonly path: string
  readonly disk: { readonly format: string }
}

/** The image that a disk stands on, if any. @throws PlasmaError `NotQcow2`, `ImageDamaged` */
export async function baseOf({ path, disk }: Stands): Promise<string | undefined> {
  if (disk.format !== 'qcow2') return undefined
  const name = (await qcow2Header(path)).backing?.name
  return name === undefined ? undefined : resolve(dirname(path), name)
}

/** @throws the system's error */
export async function markOf(path: string): Promise<BaseMark> {
  const { size, mtimeMs } = await stat(path)
  return { path, bytes: size, modified: new Date(Math.floor(mtimeMs)).toISOString() }
}

/** Whether it is a download, whose name is the sum of its content: another file of that name is the same. */
export const isNamedBySum = (path: string) => /^[0-9a-f]{64}$/.test(basename(path))

/**
 * Checks the image that a disk stands on: what the guest wrote fits that one alone, and would be nonsense on another.
 * @param mark as it was when the disk was made; undefined where nobody noted that
 * @throws PlasmaError `BaseMissing`, `BaseChanged`, `BaseUnreadable` naming the field
 */
export async function requireBase(path: string, field: string, mark: BaseMark | undefined): Promise<void> {
  const what = `${field}: the image ${path}, on which the disk stands,`
  const now = await markOf(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT')
      throw new PlasmaError('BaseMissing', `${what} is not there`, { hint: 'bring it back' })
    throw new PlasmaError('BaseUnreadable', `${what} can't be read: ${whyFile(error)}`, { cause: error })
  })
  if (mark?.path !== path || isNamedBySum(path)) return
  if (mark.bytes === now.bytes && mark.modified === now.modified) return
  const hint = `bring back the one of ${mark.bytes} bytes and ${mark.modified}; if its content is the same: touch -d ${mark.modified} ${path}; for a new disk take another name`
  throw new PlasmaError(
    'BaseChanged',
    `${what} was changed since: it has ${now.bytes} bytes of ${now.modified}`,
    { hint },
  )
}
