import { randomUUID } from 'node:crypto'
import { mkdir, open, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from './errors.ts'

const words: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'this file system does not allow it',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left there',
  EDQUOT: 'the disk quota is used up',
  ENOTDIR: 'a part of the path is no folder',
  ENAMETOOLONG: 'the path is too long',
  ELOOP: 'its symbolic links lead in circles',
}

/** Makes a folder that is there after a power cut too: its name is flushed in the one above it, where that can be read. */
async function makeOne(path: string): Promise<void> {
  await mkdir(path, { mode: 0o700 })
  const parent = await open(dirname(path), 'r').catch(() => undefined)
  try {
    await parent?.sync()
  } finally {
    await parent?.close()
  }
}

/**
 * Makes a folder (mode 0700) and those above it, where missing, durably. Node's own `recursive` tries for ever where a
 * parent takes no folders (/proc).
 */
export async function makeFolders(path: string): Promise<void> {
  try {
    await makeUnlessThere(path)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolders(dirname(path))
    await makeUnlessThere(path)
  }
}

async function makeUnlessThere(path: string): Promise<void> {
  try {
    await makeOne(path)
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error
  }
}

/**
 * A failed write to a folder, named by the setting that chooses it; every other error as it is.
 * @param setting such as `--data-dir`
 */
export function inFolder(error: unknown, path: string, setting: string): unknown {
  if (error instanceof PlasmaError || words[errnoOf(error) ?? ''] === undefined) return error
  return new PlasmaError('FolderUnusable', `${setting}: ${path} can't be written: ${whyFile(error)}`, {
    hint: `free space there, make it writable for this user, or choose another folder with ${setting}`,
    cause: error,
  })
}

/** Why a file or folder can't be used, in words. */
export function whyFile(error: unknown): string {
  return words[errnoOf(error) ?? ''] ?? messageOf(error)
}

/** The same where a folder was to be made. */
export function whyFolder(error: unknown): string {
  const code = errnoOf(error)
  if (code === 'EEXIST') return 'it is a file, not a folder'
  return code === 'ENOENT' ? 'no folder can be made there' : whyFile(error)
}

/**
 * Makes a folder (mode 0700) with those above it where it is missing, and proves that files can be made in it.
 * @param setting what chooses the folder, for the error: `--data-dir`
 * @throws PlasmaError `FolderUnusable`
 */
export async function ensureFolder(path: string, setting: string): Promise<void> {
  const probe = join(path, `.probe-${randomUUID()}`)
  try {
    await makeFolders(path)
    await writeFile(probe, '')
  } catch (error) {
    throw new PlasmaError('FolderUnusable', `${setting}: ${path} can't be used: ${whyFolder(error)}`, {
      hint: `choose another folder with ${setting}, or make this one writable for this user`,
      cause: error,
    })
  }
  await rm(probe, { force: true })
}
