import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../lib/clock.ts'
import { inField, PlasmaError } from '../lib/errors.ts'
import { makeFolders } from '../lib/folders.ts'
import { download } from './download.ts'
import { makeWhole, removeParts } from './durable-files.ts'
import { type OffLimits, requireImage } from './host-files.ts'
import { freeBytes } from './pools.ts'
import { Slots } from './slots.ts'

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

export const isUrl = (source: string) => /^https?:/i.test(source)

export interface ImagesOptions {
  readonly cacheDir: string
  readonly limits: () => OffLimits
  /** Shared with other work that reads whole images. */
  readonly copies: Slots
  readonly clock: Clock
  /** How long a server may stay silent, in milliseconds; 60 000 unless given. */
  readonly stallMs?: number
}

/** A slow server must not hold up all others; many at once only share the line. */
const mostDownloads = 4

interface Running {
  readonly work: Promise<unknown>
  readonly listeners: Set<(percent: number) => void>
}

/** Images of this host: local files, and downloads kept once for every machine by their SHA-256. */
export class Images {
  readonly #options: ImagesOptions
  readonly #running = new Map<string, Running>()
  readonly #downloads = new Slots(mostDownloads)
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
    if (isUrl(image.source)) return this.#cached(image, field, signal, onPercent)
    const { limits, copies } = this.#options
    const path = await requireImage(image.source, `${field}.source`, limits())
    const { sha256 } = image
    if (sha256 === undefined) return path
    const found = await copies.use(signal, () => sha256Of(path, signal))
    if (found !== sha256) throw mismatch(field, sha256, found)
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
    for (let other = this.#running.get(sha256); other; other = this.#running.get(sha256)) {
      other.listeners.add(onPercent)
      const { listeners } = other
      await endOf(other.work, signal).finally(() => listeners.delete(onPercent))
    }
    const listeners = new Set([onPercent])
    const tell = (percent: number) => {
      for (const listener of listeners) listener(percent)
    }
    const work = this.#downloads.use(signal, () => this.#fetch(source, sha256, path, field, signal, tell))
    this.#running.set(sha256, { work, listeners })
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
    await makeFolders(cacheDir)
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
