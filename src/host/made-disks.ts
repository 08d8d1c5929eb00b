import { readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { makeFolders } from '../lib/folders.ts'
import type { BaseMark } from './disk-base.ts'
import { makeWhole } from './durable-files.ts'

const base = z.object({ path: z.string(), bytes: z.number(), modified: z.string() })
const shape = z.object({
  version: z.literal(1),
  disks: z.record(z.string(), z.string()),
  bases: z.record(z.string(), base).optional(),
})
type Made = Pick<z.output<typeof shape>, 'disks' | 'bases'>

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
    return new Map(Object.entries((await this.#read(uid)).disks))
  }

  /** The images that disks of a uid were made on, by name of the disk. @throws PlasmaError `RecordUnreadable` */
  async basesOf(uid: string): Promise<ReadonlyMap<string, BaseMark>> {
    return new Map(Object.entries((await this.#read(uid)).bases ?? {}))
  }

  async #read(uid: string): Promise<Made> {
    const file = this.#file(uid)
    try {
      return shape.parse(JSON.parse(await readFile(file, 'utf8')))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return { disks: {} }
      throw new PlasmaError('RecordUnreadable', `${file} can't be read: ${messageOf(error)}`, {
        hint: 'repair it, or remove it where the disks of the machine are all there',
        cause: error,
      })
    }
  }

  /** Notes a disk that is there, and the image that it was made on. Not for two calls at once for one uid. */
  async note(uid: string, name: string, path: string, on?: BaseMark): Promise<void> {
    const { disks, bases } = await this.#read(uid)
    if (disks[name] === path && (on === undefined || bases?.[name]?.path === on.path)) return
    const others = Object.entries(bases ?? {}).filter(([other]) => other !== name)
    const noted = Object.fromEntries(on === undefined ? others : [...others, [name, on]])
    await this.#write(uid, { disks: { ...disks, [name]: path }, bases: noted })
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
    const { disks, bases } = await this.#read(uid)
    const kept = Object.entries(disks).filter(([, path]) => !isGone(path))
    if (kept.length === 0) return this.forget(uid)
    const left = Object.fromEntries(kept)
    const on = Object.entries(bases ?? {}).filter(([name]) => left[name] !== undefined)
    await this.#write(uid, { disks: left, bases: Object.fromEntries(on) })
  }

  async #write(uid: string, { disks, bases = {} }: Made): Promise<void> {
    await makeFolders(this.#dir)
    const on = Object.keys(bases).length > 0 ? { bases } : {}
    const text = `${JSON.stringify({ version: 1, disks, ...on }, null, 1)}\n`
    await makeWhole(this.#file(uid), (part) => writeFile(part, text, { mode: 0o600 }))
  }
}
