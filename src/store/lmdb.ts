import { type Database, open, type RootDatabase } from 'lmdb'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { type Log, silentLog } from '../lib/log.ts'
import { ApiError } from './errors.ts'
import { Feed, tooOld } from './feed.ts'
import { lockFolder } from './folder-lock.ts'
import { endOfPrefix } from './key-range.ts'
import type { Kv, KvEntry, KvEvent, KvList } from './kv.ts'

export interface LmdbOptions {
  /** How many events are kept for watchers that come back; older ones get Gone. */
  readonly historyLimit?: number
  readonly log?: Log
}

interface Stored {
  readonly r: number
  readonly v: string
}

const trimEvery = 256

/**
 * Opens the store in a folder; one process at a time.
 * @throws PlasmaError `FolderInUse`, `StoreUnusable`
 */
export async function openLmdb(path: string, options: LmdbOptions = {}): Promise<Kv> {
  const unlock = lockFolder(path)
  try {
    // Without overlappingSync a commit resolves only after its flush: acknowledged is durable, and all writers that
    // came meanwhile share the next flush. Nobody sees a write before it is durable, either.
    const root = open({ path, name: 'plasmavmc', overlappingSync: false, maxDbs: 4, encoding: 'json' })
    return new LmdbKv(root, unlock, options)
  } catch (error) {
    unlock()
    throw new PlasmaError('StoreUnusable', `the store in ${path} can't be opened: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

class LmdbKv implements Kv {
  readonly #root: RootDatabase
  readonly #objects: Database<Stored, string>
  readonly #events: Database<Record<string, unknown>, number>
  readonly #meta: Database<number, string>
  readonly #feed = new Feed()
  readonly #uncommitted: KvEvent[] = []
  readonly #unlock: () => void
  readonly #historyLimit: number
  readonly #log: Log

  constructor(root: RootDatabase, unlock: () => void, options: LmdbOptions) {
    this.#root = root
    this.#unlock = unlock
    this.#historyLimit = options.historyLimit ?? 10_000
    this.#log = options.log ?? silentLog
    this.#objects = root.openDB({ name: 'objects', encoding: 'json' })
    this.#events = root.openDB({ name: 'events', encoding: 'json' })
    this.#meta = root.openDB({ name: 'meta', encoding: 'json' })
  }

  async get(key: string): Promise<KvEntry | undefined> {
    const stored = this.#objects.get(key)
    return stored && { key, value: stored.v, revision: BigInt(stored.r) }
  }

  async list(
    prefix: string,
    options: { readonly after?: string; readonly limit?: number } = {},
  ): Promise<KvList> {
    const { after, limit } = options
    const transaction = this.#root.useReadTransaction()
    try {
      const range = {
        start: after ?? prefix,
        end: endOfPrefix(prefix),
        exclusiveStart: after !== undefined,
        ...(limit !== undefined && { limit: limit + 1 }),
        transaction,
      }
      const entries = [...this.#objects.getRange(range)].map(({ key, value }) => ({
        key,
        value: value.v,
        revision: BigInt(value.r),
      }))
      const revision = BigInt(this.#meta.get('revision', { transaction }) ?? 0)
      if (limit === undefined || entries.length <= limit) return { entries, revision }
      const page = entries.slice(0, limit)
      const last = page.at(-1)?.key
      return { entries: page, revision, ...(last !== undefined && { more: last }) }
    } finally {
      transaction.done()
    }
  }

  put(key: string, value: string, expected: bigint): Promise<bigint | undefined> {
    return this.#write(key, expected, (revision, previous) => {
      this.#objects.put(key, { r: revision, v: value })
      return {
        type: 'put',
        key,
        value,
        revision: BigInt(revision),
        ...(previous !== undefined && { previous }),
      }
    })
  }

  delete(key: string, expected: bigint): Promise<bigint | undefined> {
    if (expected === 0n) return Promise.resolve(undefined)
    return this.#write(key, expected, (revision, previous = '') => {
      this.#objects.remove(key)
      return { type: 'delete', key, revision: BigInt(revision), previous }
    })
  }

  watch(prefix: string, from: bigint, signal: AbortSignal): AsyncIterable<KvEvent> {
    return this.#feed.watch(prefix, from, signal, (revision) => this.#history(revision))
  }

  async close(): Promise<void> {
    await this.#root.close()
    this.#unlock()
  }

  async #write(
    key: string,
    expected: bigint,
    change: (revision: number, previous: string | undefined) => KvEvent,
  ): Promise<bigint | undefined> {
    let event: KvEvent | undefined
    try {
      await this.#root.transaction(() => {
        const before = this.#objects.get(key)
        if (BigInt(before?.r ?? 0) !== expected) return
        const revision = (this.#meta.get('revision') ?? 0) + 1
        event = change(revision, before?.v)
        const { revision: _, ...row } = event
        this.#events.put(revision, row)
        this.#meta.put('revision', revision)
        if (revision % trimEvery === 0) this.#trim(revision)
        this.#uncommitted.push(event)
      })
    } catch (error) {
      if (event) this.#forget(event)
      this.#log.error('a write to the store failed', { key, err: error })
      const hint = 'is the disk of the data directory full or read-only?'
      throw new ApiError(
        'ServiceUnavailable',
        `the store can't be written: ${messageOf(error)}`,
        {},
        { hint, cause: error },
      )
    }
    if (!event) return undefined
    this.#publish(event.revision)
    return event.revision
  }

  /** A commit holds everything up to its revision, so all of that may be shown, in order. */
  #publish(upTo: bigint): void {
    const count = this.#uncommitted.findIndex((event) => event.revision > upTo)
    const ready = this.#uncommitted.splice(0, count < 0 ? this.#uncommitted.length : count)
    if (ready.length > 0) this.#feed.publish(ready)
  }

  #forget(event: KvEvent): void {
    const index = this.#uncommitted.indexOf(event)
    if (index >= 0) this.#uncommitted.splice(index, 1)
  }

  #trim(revision: number): void {
    const oldest = this.#meta.get('oldest') ?? 0
    const keepFrom = revision - this.#historyLimit
    if (keepFrom <= oldest) return
    for (const key of [...this.#events.getKeys({ start: 0, end: keepFrom + 1 })]) this.#events.remove(key)
    this.#meta.put('oldest', keepFrom)
  }

  /** Committed events only: what is in a transaction under way is published when it is durable. */
  #history(from: bigint): readonly KvEvent[] {
    const transaction = this.#root.useReadTransaction()
    try {
      const revision = BigInt(this.#meta.get('revision', { transaction }) ?? 0)
      if (from < BigInt(this.#meta.get('oldest', { transaction }) ?? 0) || from > revision) throw tooOld(from)
      const rows = this.#events.getRange({ start: Number(from) + 1, transaction })
      return [...rows].map(({ key, value }) => ({ ...value, revision: BigInt(key) }) as KvEvent)
    } finally {
      transaction.done()
    }
  }
}
