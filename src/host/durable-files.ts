import { randomUUID } from 'node:crypto'
import { open, readdir, rename, rm } from 'node:fs/promises'
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
  const part = `${path}.${randomUUID()}.part`
  try {
    await make(part)
    await sync(part)
    await rename(part, path)
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
