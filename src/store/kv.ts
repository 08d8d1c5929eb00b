/**
 * A small revisioned key-value store: what LMDB, etcd and memory have in common, and no more.
 * Every write gets the next revision of one store-wide counter; keys are ASCII strings of at most 1024 characters,
 * ordered bytewise; values are opaque strings.
 */
export interface KvEntry {
  readonly key: string
  readonly value: string
  /** The revision of the last write to this key. */
  readonly revision: bigint
}

/** What the caller of a list has for a key at a revision already; undefined where it has nothing. */
export type Reuse = (key: string, revision: bigint) => string | undefined

export interface ListedEntry extends KvEntry {
  /** What `reuse` gave for it: then `value` was not read, and is empty. */
  readonly reused?: string
}

export interface KvListOptions {
  /** A store that knows revisions without reading values may take it at its word, and leave those values out. */
  readonly reuse?: Reuse

  /** Only keys greater than this one; it may lie outside of the prefix. */
  readonly after?: string
  readonly limit?: number
  /** The store as it was at this revision; now where absent. */
  readonly at?: bigint
}

export interface KvList {
  readonly entries: readonly ListedEntry[]
  /** The store's revision at which this list is exact: watch from here to miss nothing. */
  readonly revision: bigint
  /** Present when `limit` cut the list: the key to continue after. */
  readonly more?: string
  /** How many come after `more`, where the store knows without reading them. */
  readonly left?: number
}

/** What one watch has shown so far; its store fills it in. */
export interface WatchProgress {
  /**
   * Up to this revision everything was shown to the reader, who has asked for the next event and waits. Undefined while
   * events are on their way.
   */
  upTo?: () => bigint | undefined
}

export type KvEvent =
  | {
      readonly type: 'put'
      readonly key: string
      readonly value: string
      readonly revision: bigint
      /** What the key held before, and since which revision; absent where it is new. */
      readonly previous?: KvPrevious
    }
  | {
      readonly type: 'delete'
      readonly key: string
      readonly revision: bigint
      readonly previous: KvPrevious
    }

export interface KvPrevious {
  readonly value: string
  readonly revision: bigint
}

/** Another key that must still have this revision (0n: still not exist) for a write to be made. */
export interface KvCondition {
  readonly key: string
  readonly revision: bigint
}

export interface Kv {
  /** The entry, or undefined where there is none. */
  get(key: string): Promise<KvEntry | undefined>
  /**
   * All entries whose key starts with `prefix`, in key order, from one consistent snapshot.
   * @throws ApiError `Gone` when `at` is older than the kept history.
   */
  list(prefix: string, options?: KvListOptions): Promise<KvList>
  /**
   * Writes if the key's current revision equals `expected` (0n: the key must not exist), and `also` holds where given.
   * Resolves only when the write is durable.
   * @returns the new revision, or `undefined` when the condition failed and nothing was written.
   * @throws ApiError `ServiceUnavailable` when it can't be written.
   */
  put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined>
  /** Deletes if the revision matches, and `also` holds. @returns the deletion's revision, or `undefined` when it did not match. */
  delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined>
  /**
   * Events after revision `from`, in revision order, only for keys under `prefix`, until the signal is aborted.
   * @param progress is told how far it is, by stores that can tell
   * @throws ApiError `Gone` when `from` is older than the kept history, or when this reader fell too far behind.
   */
  watch(prefix: string, from: bigint, signal: AbortSignal, progress?: WatchProgress): AsyncIterable<KvEvent>
  close(): Promise<void>
}
