import { readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { makeFolders } from '../lib/folders.ts'
import { makeWhole } from './durable-files.ts'

const shape = z.object({ version: z.literal(1), disks: z.record(z.string(), z.string()) })

/**
 * Which disks were made, by uid: `<data-dir>/made/<uid>.json`. A disk that was made once and is not there is lost (a
 * pool that is not mounted, a file that was removed): without this record it would look like one that is still to be
 * made, and its machine would start on an empty one.
 */
export class MadeDisks {
  readonly #dir: string

  constructor(dataDir: string) {
    this.#dir = join(dataDir, 'made')
  }

  #file(uid: string): string {
    return join(this.#dir, `${uid}.json`)
  }

  /** Paths of the disks made for a uid, by name. @throws PlasmaError `RecordUnreadable` */
  async of(uid: string): Promise<ReadonlyMap<string, string>> {
    const file = this.#file(uid)
    try {
      return new Map(Object.entries(shape.parse(JSON.parse(await readFile(file, 'utf8'))).disks))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return new Map()
      throw new PlasmaError('RecordUnreadable', `${file} can't be read: ${messageOf(error)}`, {
        hint: 'repair it, or remove it where the disks of the machine are all there',
        cause: error,
      })
    }
  }

  /** Notes a disk that is there. Not for two calls at once for one uid. */
  async note(uid: string, name: string, path: string): Promise<void> {
    const before = await this.of(uid)
    if (before.get(name) === path) return
    await this.#write(uid, { ...Object.fromEntries(before), [name]: path })
  }

  /** Folders of a uid that disks were made in, also in pools that are declared no more. Never rejects. */
  async foldersOf(uid: string): Promise<readonly string[]> {
    const made = await this.of(uid).catch(() => new Map<string, string>())
    const folders = [...made.values()].map((path) => dirname(path))
    return [...new Set(folders)].filter((folder) => basename(folder) === uid)
  }

  async forget(uid: string): Promise<void> {
    await rm(this.#file(uid), { force: true })
  }

  /** Forgets the disks that are another host's from now on. Not for two calls at once for one uid. */
  async forgetThose(uid: string, isGone: (path: string) => boolean): Promise<void> {
    const kept = [...(await this.of(uid))].filter(([, path]) => !isGone(path))
    if (kept.length === 0) return this.forget(uid)
    await this.#write(uid, Object.fromEntries(kept))
  }

  async #write(uid: string, disks: Readonly<Record<string, string>>): Promise<void> {
    await makeFolders(this.#dir)
    const text = `${JSON.stringify({ version: 1, disks }, null, 1)}\n`
    await makeWhole(this.#file(uid), (part) => writeFile(part, text, { mode: 0o600 }))
  }
}
