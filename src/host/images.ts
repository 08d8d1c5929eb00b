import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, chmod, constants, mkdir, stat } from 'node:fs/promises'
import { isAbsolute, join, relative, resolve } from 'node:path'
import type { Clock } from '../lib/clock.ts'
import { errnoOf, inField, PlasmaError } from '../lib/errors.ts'
import { whyFile } from '../lib/folders.ts'
import { download } from './download.ts'
import { makeWhole, removeParts } from './durable-files.ts'
import { freeBytes } from './pools.ts'

/**
 * The path of a file of the host that a spec names; relative ones lie in the image folder and may not leave it.
 * @throws PlasmaError `OutsideImageDir`
 */
export function imagePath(imageDir: string, source: string, field: string): string {
  if (isAbsolute(source)) return resolve(source)
  const path = resolve(imageDir, source)
  const inside = relative(imageDir, path)
  if (inside === '' || inside === '..' || inside.startsWith('../'))
    throw new PlasmaError('OutsideImageDir', `${field}: ${source} leads out of the image folder ${imageDir}`)
  return path
}

/**
 * Checks that a path is a file that can be read, or a block device.
 * @throws PlasmaError `FileMissing`, `FileUnreadable` naming the field
 */
export async function requireReadable(path: string, field: string): Promise<void> {
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

async function sha256Of(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { signal, highWaterMark: 1 << 20 })) hash.update(chunk)
  return hash.digest('hex')
}

function mismatch(field: string, wanted: string, found: string): PlasmaError {
  const what = `${field}.sha256 says ${wanted}, the image has ${found}`
  return new PlasmaError('ChecksumMismatch', what, { hint: 'correct the sum, or look who changed the image' })
}

/** Waits for somebody else's work, however it ends. @throws the signal's reason when it is aborted first */
function endOf(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const leave = () => reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    const settled = () => {
      signal.removeEventListener('abort', leave)
      resolve()
    }
    work.then(settled, settled)
  })
}

export interface ImageSource {
  readonly source: string
  readonly sha256?: string | undefined
}

export interface ImagesOptions {
  readonly imageDir: string
  readonly cacheDir: string
  readonly clock: Clock
  /** How long a server may stay silent, in milliseconds; 60 000 unless given. */
  readonly stallMs?: number
}

/** Images of this host: local files, and downloads kept once for every machine by their SHA-256. */
export class Images {
  readonly #options: ImagesOptions
  readonly #running = new Map<string, Promise<unknown>>()
  #cleaned: Promise<void> | undefined

  constructor(options: ImagesOptions) {
    this.#options = options
  }

  /**
   * The local path of an image, whole and with the right sum; downloads it first where needed. `field` is the spec's
   * path of it, for messages.
   * @throws PlasmaError `ChecksumMismatch`, `FileMissing`, `FileUnreadable`, `OutsideImageDir` and those of `download`
   */
  async obtain(
    image: ImageSource,
    field: string,
    signal: AbortSignal,
    onPercent: (percent: number) => void,
  ): Promise<string> {
    if (/^https?:/i.test(image.source)) return this.#cached(image, field, signal, onPercent)
    const path = imagePath(this.#options.imageDir, image.source, `${field}.source`)
    await requireReadable(path, `${field}.source`)
    if (image.sha256 === undefined) return path
    const found = await sha256Of(path, signal)
    if (found !== image.sha256) throw mismatch(field, image.sha256, found)
    return path
  }

  async #cached(
    { source, sha256 }: ImageSource,
    field: string,
    signal: AbortSignal,
    onPercent: (percent: number) => void,
  ): Promise<string> {
    if (sha256 === undefined || !/^[0-9a-f]{64}$/.test(sha256))
      throw new PlasmaError('ChecksumMissing', `${field}.sha256 is required for a URL`)
    const path = join(this.#options.cacheDir, sha256)
    // One download of an image at a time; whoever waited finds it in the cache, or tries for itself.
    for (let other = this.#running.get(sha256); other; other = this.#running.get(sha256))
      await endOf(other, signal)
    const work = this.#fetch(source, sha256, path, field, signal, onPercent)
    this.#running.set(sha256, work)
    try {
      await work
    } finally {
      this.#running.delete(sha256)
    }
    return path
  }

  async #fetch(
    url: string,
    wanted: string,
    path: string,
    field: string,
    signal: AbortSignal,
    onPercent: (percent: number) => void,
  ): Promise<void> {
    const { cacheDir, clock, stallMs = 60_000 } = this.#options
    await mkdir(cacheDir, { recursive: true, mode: 0o755 })
    // Parts of a killed run: before the first download of this one, so that none of them is in use.
    this.#cleaned ??= removeParts(cacheDir).catch((error: unknown) => {
      this.#cleaned = undefined
      throw error
    })
    await this.#cleaned
    const found = await stat(path).catch(() => undefined)
    if (found?.isFile()) return
    const whole = makeWhole(path, async (to) => {
      const limit = await freeBytes(cacheDir)
      const sum = await download({ url, to, limit, clock, signal, stallMs, onPercent })
      if (sum !== wanted) throw mismatch(field, wanted, sum)
      // Overlays stand on it: nobody may write to it.
      await chmod(to, 0o444)
    })
    await whole.catch((error: unknown) => {
      throw signal.aborted ? error : inField(`${field}.source`, error, 'ImageUnusable')
    })
  }
}
