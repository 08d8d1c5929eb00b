import { type Database, open, type RootDatabase } from 'lmdb'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { Feed } from './feed.ts'
import { lockFolder } from './folder-lock.ts'
import { defaultHistory, historyChunk, pageOf, setBack, tooOld, undo, weightOf } from './history.ts'
import { endOfPrefix } from './key-range.ts'
import type {
  Kv,
  KvCondition,
  KvEntry,
  KvEvent,
  KvList,
  KvListOptions,
  KvPrevious,
  ListedEntry,
  Reuse,
  WatchProgress,
} from './kv.ts'
import { entryOf, entryRow, eventOf, eventRow } from './rows.ts'
import { muteLmdb, StoreHealth } from './store-health.ts'

export interface LmdbOptions {
  /** How many events are kept for watchers that come back; older ones get Gone. */
  readonly historyLimit?: number
  /** And how many bytes of them. */
  readonly historyBytes?: number
  readonly log?: Log
}

/** A store of this process, which can say how it is. */
export interface LocalKv extends Kv {
  /** Why it takes no writes, within `timeoutMs`; undefined where it does, as far as the last write tells. */
  trouble(timeoutMs: number): Promise<string | undefined>
}

type Transaction = ReturnType<RootDatabase['useReadTransaction']>

interface Range {
  readonly start: string
  readonly exclusiveStart?: boolean
  readonly end: string
  readonly transaction: Transaction
}

/**
 * Address space that is set aside for the file, which stays as small as it is: a file that outgrows its map is mapped
 * once more, and both maps stay.
 */
const mapSize = 2 ** 34

/** Writes between two trims of the history. */
const trimEvery = 256

/** What is written to see whether that goes. */
const probeKey = 'probe'
const probe = 'x'.repeat(64 * 1024)

/** LMDB refuses longer keys; no object has one. */
const maxKeyLength = 1_024

/**
 * Opens the store in a folder; one process at a time.
 * @throws PlasmaError `FolderInUse`, `StoreUnusable`
 */
export async function openLmdb(path: string, options: LmdbOptions = {}): Promise<LocalKv> {
  const unlock = await lockFolder(path)
  try {
    // Without overlappingSync a commit resolves only after its flush: acknowledged is durable, and all writers that
    // came meanwhile share the next flush. Nobody sees a write before it is durable, either.
    // With noSubdir, the default for a name with a dot in it, the folder would be taken for a file.
    // Without eventTurnBatching there is no promise of a batch, which would be nobody's: when a commit fails its
    // rejection would end the process.
    const root = open({
      ...{ path, noSubdir: false, name: 'plasmavmc', maxDbs: 4, encoding: 'json' as const },
      ...{ overlappingSync: false, eventTurnBatching: false, mapSize },
    })
    return new LmdbKv(root, unlock, new StoreHealth(path, options.log), options)
  } catch (error) {
    await unlock()
    throw new PlasmaError('StoreUnusable', `the store in ${path} can't be opened: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

class LmdbKv implements LocalKv {
  readonly #root: RootDatabase
  readonly #objects: Database<string, string>
  readonly #events: Database<string, number>
  readonly #meta: Database<number, string>
  readonly #feed = new Feed()
  readonly #uncommitted: KvEvent[] = []
  /** Revisions of keys that were listed with `reuse`, as they are at the revision of the store that is beside. */
  readonly #revisions = new Map<string, bigint>()
  #revisionsAt: bigint
  readonly #unlock: () => Promise<void>
  readonly #historyLimit: number
  readonly #historyBytes: number
  readonly #health: StoreHealth
  readonly #unmute = muteLmdb()

  constructor(root: RootDatabase, unlock: () => Promise<void>, health: StoreHealth, options: LmdbOptions) {
    this.#root = root
    this.#unlock = unlock
    this.#historyLimit = options.historyLimit ?? defaultHistory.limit
    this.#historyBytes = options.historyBytes ?? defaultHistory.bytes
    this.#health = health
    this.#objects = root.openDB({ name: 'objects', encoding: 'string', compression: true })
    this.#events = root.openDB({ name: 'log', encoding: 'string', compression: true })
    this.#meta = root.openDB({ name: 'meta', encoding: 'json' })
    const revision = this.#meta.get('revision') ?? 0
    this.#revisionsAt = BigInt(revision)
    // Events that are not there, of an older format say, must not look as if nothing had happened.
    if (revision > 0 && this.#events.get(revision) === undefined) {
      this.#meta.putSync('oldest', revision)
      this.#meta.putSync('historyBytes', 0)
    }
  }

  async get(key: string): Promise<KvEntry | undefined> {
    if (key.length > maxKeyLength) return undefined
    const row = this.#objects.get(key)
    return row === undefined ? undefined : entryOf(key, row)
  }

  async list(prefix: string, options: KvListOptions = {}): Promise<KvList> {
    const { limit, at, reuse } = options
    const after = (options.after ?? '').slice(0, maxKeyLength)
    return this.#read((transaction, revision) => {
      const wanted = at ?? revision
      const were = undo(this.#since(wanted, transaction), prefix, after)
      if (prefix.length > maxKeyLength) return { entries: [], revision: wanted }
      const range = {
        ...(after > prefix ? { start: after, exclusiveStart: true } : { start: prefix }),
        end: endOfPrefix(prefix),
        transaction,
      }
      const now =
        reuse && wanted === revision
          ? this.#listed(range, revision, reuse)
          : this.#objects.getRange(range).map(({ key, value }) => entryOf(key, value))
      const page = pageOf(setBack(now, were), limit, wanted)
      if (page.more === undefined || were.size > 0) return page
      const rest = { ...range, start: page.more, exclusiveStart: true }
      return { ...page, left: this.#objects.getKeysCount(rest) }
    })
  }

  /** The entries of a range, without the values that the caller has: to read those is most of the work of a long list. */
  *#listed(range: Range, revision: bigint, reuse: Reuse): Generator<ListedEntry> {
    const { transaction } = range
    // A commit is in the file a moment before it is known of here: what is known is of another revision then.
    const known = this.#revisionsAt === revision
    for (const key of this.#objects.getKeys(range)) {
      const last = known ? this.#revisions.get(key) : undefined
      const reused = last === undefined ? undefined : reuse(key, last)
      if (last !== undefined && reused !== undefined) {
        yield { key, value: '', revision: last, reused }
        continue
      }
      const row = this.#objects.get(key, { transaction })
      if (row === undefined) continue
      const entry = entryOf(key, row)
      if (known) this.#revisions.set(key, entry.revision)
      yield entry
    }
  }

  put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    return this.#write(key, expected, also, (revision, previous) => {
      this.#objects.put(key, entryRow(revision, value))
      return { type: 'put', key, value, revision, ...(previous && { previous }) }
    })
  }

  delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    if (expected === 0n) return Promise.resolve(undefined)
    return this.#write(key, expected, also, (revision, previous = { value: '', revision: 0n }) => {
      this.#objects.remove(key)
      return { type: 'delete', key, revision, previous }
    })
  }

  watch(prefix: string, from: bigint, signal: AbortSignal, progress?: WatchProgress): AsyncIterable<KvEvent> {
    const history = (after: bigint) =>
      this.#read((transaction) => [...this.#since(after, transaction, historyChunk)])
    return this.#feed.watch(prefix, from, signal, history, progress)
  }

  async close(): Promise<void> {
    await this.#root.close()
    this.#unmute()
    await this.#unlock()
  }

  async #write(
    key: string,
    expected: bigint,
    also: KvCondition | undefined,
    change: (revision: bigint, previous: KvPrevious | undefined) => KvEvent,
  ): Promise<bigint | undefined> {
    await this.#health.check()
    let event: KvEvent | undefined
    try {
      await this.#root.transaction(() => {
        const row = this.#objects.get(key)
        const before = row === undefined ? undefined : entryOf(key, row)
        if ((before?.revision ?? 0n) !== expected || !this.#holds(also)) return
        const revision = (this.#meta.get('revision') ?? 0) + 1
        event = change(BigInt(revision), before && { value: before.value, revision: before.revision })
        this.#events.put(revision, eventRow(event))
        this.#meta.put('revision', revision)
        this.#trim(revision, weightOf(event))
        this.#uncommitted.push(event)
      })
    } catch (error) {
      if (event) this.#forget(event)
      throw await this.#writeError(error)
    }
    if (event) this.#health.succeeded()
    if (!event) return undefined
    this.#publish(event.revision)
    return event.revision
  }

  #holds(also: KvCondition | undefined): boolean {
    if (!also) return true
    const row = this.#objects.get(also.key)
    return (row === undefined ? 0n : entryOf(also.key, row).revision) === also.revision
  }

  async trouble(timeoutMs: number): Promise<string | undefined> {
    const asked = () => this.#health.trouble(() => this.#tryWrite())
    return withDeadline(timeoutMs, 'a write to the store', asked).catch(messageOf)
  }

  /** Writes what is nobody's, as much as an object may be, and removes it: the room stays with the store. */
  async #tryWrite(): Promise<void> {
    const meta: Database<unknown, string> = this.#meta
    try {
      await this.#root.transaction(() => {
        meta.put(probeKey, probe)
      })
      await this.#root.transaction(() => {
        meta.remove(probeKey)
      })
    } catch (error) {
      throw await this.#writeError(error)
    }
    this.#health.succeeded()
  }

  async #writeError(error: unknown): Promise<Error> {
    // What was wrong comes later, in a promise of its own.
    const commitError = (error as { commitError?: Promise<unknown> } | null)?.commitError
    const cause = await Promise.resolve(commitError).then(
      () => error,
      (reason: unknown) => reason,
    )
    return this.#health.failed(cause)
  }

  /** A commit holds everything up to its revision, so all of that may be shown, in order. */
  #publish(upTo: bigint): void {
    const count = this.#uncommitted.findIndex((event) => event.revision > upTo)
    const ready = this.#uncommitted.splice(0, count < 0 ? this.#uncommitted.length : count)
    const last = ready.at(-1)
    if (!last) return
    for (const event of ready) {
      if (event.type === 'delete') this.#revisions.delete(event.key)
      else if (this.#revisions.has(event.key)) this.#revisions.set(event.key, event.revision)
    }
    this.#revisionsAt = last.revision
    this.#feed.publish(ready)
  }

  #forget(event: KvEvent): void {
    const index = this.#uncommitted.indexOf(event)
    if (index >= 0) this.#uncommitted.splice(index, 1)
  }

  /** Within a transaction that adds `added` bytes: removes the oldest events that are too many. */
  #trim(revision: number, added: number): void {
    let bytes = (this.#meta.get('historyBytes') ?? 0) + added
    const keepFrom = revision % trimEvery === 0 ? revision - this.#historyLimit : 0
    let oldest = this.#meta.get('oldest') ?? 0
    if (keepFrom > oldest || bytes > this.#historyBytes) {
      const gone: number[] = []
      for (const { key, value } of this.#events.getRange({ start: oldest + 1 })) {
        if (key > keepFrom && bytes <= this.#historyBytes) break
        bytes -= weightOf(eventOf(key, value))
        gone.push(key)
      }
      for (const key of gone) this.#events.remove(key)
      oldest = gone.at(-1) ?? oldest
      this.#meta.put('oldest', oldest)
    }
    this.#meta.put('historyBytes', bytes)
  }

  /** Committed events after a revision: those of a transaction under way are published when it is durable. */
  #since(from: bigint, transaction: Transaction, limit?: number): Iterable<KvEvent> {
    const revision = BigInt(this.#meta.get('revision', { transaction }) ?? 0)
    if (from < BigInt(this.#meta.get('oldest', { transaction }) ?? 0) || from > revision) throw tooOld(from)
    if (from === revision) return []
    const range = { start: Number(from) + 1, transaction, ...(limit !== undefined && { limit }) }
    return this.#events.getRange(range).map(({ key, value }) => eventOf(key, value))
  }

  /** Reads from one snapshot. */
  #read<T>(work: (transaction: Transaction, revision: bigint) => T): T {
    const transaction = this.#root.useReadTransaction()
    try {
      return work(transaction, BigInt(this.#meta.get('revision', { transaction }) ?? 0))
    } finally {
      transaction.done()
    }
  }
}
