import { randomUUID } from 'node:crypto'
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from './errors.ts'

const words: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'this file system does not allow it',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left there',
  EDQUOT: 'the disk quota is used up',
  ENOENT: 'no folder can be made there',
  ENOTDIR: 'a part of the path is no folder',
  ENAMETOOLONG: 'the path is too long',
  ELOOP: 'its symbolic links lead in circles',
}

/** Makes a folder and those above it. Node's own `recursive` tries for ever where a parent takes no folders (/proc). */
async function makeAll(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    if (errnoOf(error) === 'EEXIST' && (await stat(path)).isDirectory()) return
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error
    await makeAll(dirname(path))
    await mkdir(path, { mode: 0o700 })
  }
}

function reason(error: unknown): string {
  const code = errnoOf(error) ?? ''
  if (code === 'EEXIST') return 'it is a file, not a folder'
  return words[code] ?? messageOf(error)
}

/**
 * Makes a folder (mode 0700) with those above it where it is missing, and proves that files can be made in it.
 * @param setting what chooses the folder, for the error: `--data-dir`
 * @throws PlasmaError `FolderUnusable`
 */
export async function ensureFolder(path: string, setting: string): Promise<void> {
  const probe = join(path, `.probe-${randomUUID()}`)
  try {
    await makeAll(path)
    await writeFile(probe, '')
  } catch (error) {
    throw new PlasmaError('FolderUnusable', `${setting}: ${path} can't be used: ${reason(error)}`, {
      hint: `choose another folder with ${setting}, or make this one writable for this user`,
      cause: error,
    })
  }
  await rm(probe, { force: true })
}
