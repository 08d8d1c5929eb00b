import { randomUUID } from 'node:crypto'
import { access, link, open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Makes a file that is either whole or not there, also after a power cut: `make` writes a part of a name of its own
 * (what an earlier life's child still writes to is another one), which is synced and renamed. On an error nothing is
 * left.
 * @throws PlasmaError `NoSpace`, and whatever `make` throws
 */
export async function makeWhole(path: string, make: (part: string) => Promise<unknown>): Promise<void> {
  return makeFile(path, make, rename)
}

/**
 * As `makeWhole`, but never in place of a file that is there: where hosts share a folder another one may have made it
 * meanwhile, and a guest may run on it. Then that one stays.
 */
export async function makeNew(path: string, make: (part: string) => Promise<unknown>): Promise<void> {
  return makeFile(path, make, placeNew)
}

async function placeNew(part: string, path: string): Promise<void> {
  try {
    await link(part, path)
  } catch (error) {
    const code = errnoOf(error) ?? ''
    if (code !== 'EEXIST' && !noLinks.has(code)) throw error
    // Without links the best there is leaves a moment between the look and the rename.
    if (code !== 'EEXIST' && !(await isThere(path))) return rename(part, path)
  }
  await rm(part)
}

/** What file systems without hard links say. */
const noLinks: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'])

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    (error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    },
  )
}

async function makeFile(
  path: string,
  make: (part: string) => Promise<unknown>,
  place: (part: string, path: string) => Promise<void>,
): Promise<void> {
  const part = `${path}.${randomUUID()}.part`
  try {
    await make(part)
    await sync(part)
    await place(part, path)
    await sync(dirname(path))
  } catch (error) {
    await rm(part, { force: true })
    if (!['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')) throw error
    throw new PlasmaError('NoSpace', `no space left on the file system of ${path}`, { cause: error })
  }
}

/** Removes what a killed run left half done in a directory. */
export async function removeParts(dir: string): Promise<void> {
  for (const name of await readdir(dir))
    if (name.endsWith('.part')) await rm(join(dir, name), { force: true })
}
