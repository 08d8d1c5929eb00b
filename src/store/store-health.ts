import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { getSystemErrorMessage } from 'node:util'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { ApiError } from './errors.ts'

/** What a folder must have room for before the store tries again: more than most objects take with their history. */
const roomBytes = 128 * 1024
const roomName = 'room'

/**
 * Whether a store of files takes writes. One that failed is not tried again before its folder has room, by a file that is
 * made and removed: LMDB prints each failed write to stderr, past every log.
 */
export class StoreHealth {
  readonly #folder: string
  readonly #log: Log | undefined
  #failed: string | undefined
  #room: Promise<string | undefined> | undefined
  #probe: Promise<string | undefined> | undefined

  constructor(folder: string, log: Log | undefined) {
    this.#folder = folder
    this.#log = log
  }

  /** Before a write. @throws ApiError `ServiceUnavailable` where it failed and there is no room yet */
  async check(): Promise<void> {
    if (this.#failed === undefined) return
    const why = await this.#roomTrouble()
    if (why !== undefined) throw unavailable(why)
  }

  succeeded(): void {
    if (this.#failed === undefined) return
    this.#failed = undefined
    this.#log?.info('the store takes writes again')
  }

  /** What to tell of a failed write; logged once until one goes through. */
  failed(cause: unknown): ApiError {
    const why = wordsOf(cause)
    if (this.#failed === undefined) this.#log?.error('a write to the store failed', { why, err: cause })
    this.#failed = why
    return unavailable(why, cause)
  }

  /**
   * Why the store takes no writes; undefined where it does as far as is known.
   * @param write tries one, which tells whether it went through; asked after a failure alone, one at a time
   */
  trouble(write: () => Promise<void>): Promise<string | undefined> {
    if (this.#failed === undefined) return Promise.resolve(undefined)
    this.#probe ??= this.#tried(write).finally(() => {
      this.#probe = undefined
    })
    return this.#probe
  }

  async #tried(write: () => Promise<void>): Promise<string | undefined> {
    try {
      await this.check()
      await write()
      return undefined
    } catch (error) {
      return messageOf(error)
    }
  }

  /** Why there is no room, told to all who ask while it is looked at. */
  #roomTrouble(): Promise<string | undefined> {
    this.#room ??= fill(join(this.#folder, roomName))
      .then(() => undefined, wordsOf)
      .finally(() => {
        this.#room = undefined
      })
    return this.#room
  }
}

/** Makes a file and removes it. @throws Error of the system */
async function fill(path: string): Promise<void> {
  try {
    const file = await open(path, 'w', 0o600)
    try {
      await file.writeFile(Buffer.alloc(roomBytes))
      // Some file systems promise room first and look for it later.
      await file.sync()
    } finally {
      await file.close()
    }
  } finally {
    await rm(path, { force: true })
  }
}

function unavailable(why: string, cause?: unknown): ApiError {
  const hint = 'is the disk of the data directory full or read-only?'
  return new ApiError('ServiceUnavailable', `the store can't be written: ${why}`, {}, { hint, cause })
}

/** The system's own words for its errors, which LMDB gives a positive number and adds its innards to. */
function wordsOf(error: unknown): string {
  const { code, errno } = (error ?? {}) as { readonly code?: unknown; readonly errno?: unknown }
  if (typeof code === 'number' && code > 0) return getSystemErrorMessage(-code)
  return typeof errno === 'number' && errno < 0 ? getSystemErrorMessage(errno) : messageOf(error)
}

let listening = 0
let print = console.error

/**
 * Keeps what LMDB prints of a failed commit out of the log's stream until what is returned is called: whoever made the
 * write is told of it, and tells the log.
 */
export function muteLmdb(): () => void {
  listening += 1
  if (listening === 1) {
    print = console.error
    console.error = (...words: unknown[]) => {
      const [first] = words
      // Node's own errors have a text there.
      const isLmdbs = words.length === 1 && first instanceof Error && 'code' in first
      if (!isLmdbs || typeof first.code !== 'number') return print(...words)
      // Its native part has said so, too, without an end of the line: the next line of the log is to be one.
      if (first.message.includes('Attempting to write page')) process.stderr.write('\n')
    }
  }
  return () => {
    listening -= 1
    if (listening === 0) console.error = print
  }
}
