import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeWhole, removeParts } from './host/durable-files.ts'
import { type Clock, sleep } from './lib/clock.ts'
import { errnoOf, messageOf, PlasmaError } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import {
  type EtcdReplaced,
  type EtcdSeen,
  formatSeen,
  hexId,
  parseSeen,
  type SeenRecord,
} from './store/etcd-seen.ts'

/** Its name in the data folder. */
export const recordName = 'etcd-seen.json'
/** While the store changes it is written this often, ms: what was written to the store since then may be lost unseen. */
const everyMs = 10_000

const acceptFlag = '--accept-store-reset'

export interface RecordOptions {
  readonly file: string
  readonly clock: Clock
  readonly log: Log
  /** How a file is put in place, whole. */
  readonly write?: (file: string, text: string) => Promise<void>
}

/**
 * What a server remembers of its etcd from one of its lives to the next, in a file, so that an etcd that lost data, or
 * is another one, is noticed by a server that was not running meanwhile. See docs/adr/0006-etcd.md.
 */
export class StoreRecord {
  readonly #options: RecordOptions
  readonly #stop = new AbortController()
  #before: SeenRecord | undefined
  /** Why what was remembered does not count: the store is accepted as it is. */
  #void: string | undefined
  #written: EtcdSeen | undefined
  #complained = ''
  #seen: () => EtcdSeen = () => {
    throw new Error('the store is not open yet')
  }
  #loop: Promise<void> = Promise.resolve()

  constructor(options: RecordOptions) {
    this.#options = options
  }

  /**
   * What the store must fit; nothing at the first start.
   * @param accept whether a record that can't be read counts as none
   * @throws PlasmaError `BadStoreRecord` that names the file, where it can't be read
   */
  read(accept: boolean): SeenRecord | undefined {
    const { file } = this.#options
    try {
      this.#before = parseSeen(readFileSync(file, 'utf8'))
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      if (!accept) throw unreadable(file, error)
      this.#void = `${file} is no record of the store: ${messageOf(error)}`
    }
    return this.#before
  }

  /** A person accepts a store that does not fit what `read` gave. */
  accepts(cause: EtcdReplaced): void {
    this.#void = cause.message
  }

  /** What is said of a store that does not fit what `read` gave, and is not accepted. */
  refusal(cause: EtcdReplaced): PlasmaError {
    const { file } = this.#options
    const since = this.#before ? `, as ${file} has it of ${this.#before.at}` : ''
    return new PlasmaError('StoreReset', `${cause.message}${since}`, {
      hint: `machines run on and nothing was touched; look at etcd first: are --etcd-endpoints right, and are all its members the old ones? Where this store is to count from now on: start the server once with ${acceptFlag}, as docs/runbook.md tells under "etcd is gone"`,
      cause,
    })
  }

  /**
   * Writes the first record of this life, then one whenever there is something new, until `end`.
   * @throws PlasmaError `StoreRecordFailed` where a store that was to be accepted can't be recorded
   */
  async begin(seen: () => EtcdSeen, accept: boolean): Promise<void> {
    const { log, file } = this.#options
    this.#seen = seen
    if (accept) this.#tellAccepted(seen())
    // Of a life that was ended while it wrote.
    await removeParts(dirname(file)).catch(() => {})
    const why = await this.#write()
    if (why !== undefined && accept)
      throw new PlasmaError('StoreRecordFailed', `${acceptFlag}: ${file} can't be written: ${why}`, {
        hint: 'is the disk of the data directory full or read-only?',
      })
    if (!this.#before && !accept)
      log.info('etcd: no record of an earlier life; it is taken as it is', { file })
    this.#loop = this.#run()
  }

  /** Writes what is known at the end. */
  async end(): Promise<void> {
    this.#stop.abort()
    await this.#loop
    await this.#write()
  }

  #tellAccepted(now: EtcdSeen): void {
    const { log, file } = this.#options
    const is = { cluster: hexId(now.clusterId), revision: `${now.revision}` }
    const before = this.#before
    const why = this.#void
    if (why === undefined) {
      const hint = 'leave it out: it would accept the next one unseen'
      log.warn(`etcd: ${acceptFlag} was given, and there is nothing to accept`, { ...is, hint })
      return
    }
    log.warn('etcd: the store that is there is accepted as the store from now on', {
      ...{ ...is, file, why },
      ...(before && {
        before: { cluster: hexId(before.clusterId), revision: `${before.revision}`, at: before.at },
      }),
      hint: `start the server without ${acceptFlag} from now on`,
    })
  }

  async #run(): Promise<void> {
    const { clock } = this.#options
    while (!this.#stop.signal.aborted) {
      await sleep(clock, everyMs, this.#stop.signal).catch(() => {})
      if (!this.#stop.signal.aborted) await this.#write()
    }
  }

  /** @returns why it could not be written */
  async #write(): Promise<string | undefined> {
    const { file, clock, log, write = writeWhole } = this.#options
    const seen = this.#seen()
    const last = this.#written
    if (last?.clusterId === seen.clusterId && last.revision === seen.revision) return undefined
    try {
      await write(file, formatSeen({ ...seen, at: new Date(clock.now()).toISOString() }))
      this.#written = seen
      this.#complained = ''
      return undefined
    } catch (error) {
      const message = messageOf(error)
      if (message !== this.#complained) {
        const hint = 'until it can be, an etcd that loses data while this server is down may not be noticed'
        log.warn('the record of the store is not written', { file, message, hint })
      }
      this.#complained = message
      return message
    }
  }
}

async function writeWhole(file: string, text: string): Promise<void> {
  await makeWhole(file, (part) => writeFile(part, text, { mode: 0o600 }))
}

/** Neither is it passed over, which would be to forget unasked, nor can it lock anybody out: the error says what to do. */
function unreadable(file: string, cause: unknown): PlasmaError {
  return new PlasmaError('BadStoreRecord', `${file} is no record of the store: ${messageOf(cause)}`, {
    hint: `it tells whether etcd lost data while this server was down, so nothing is touched without it; machines run on. Restore it from a backup, or where etcd is known to be the old one, whole, or is to count as it is: start the server once with ${acceptFlag}`,
    cause,
  })
}
