import { type Clock, systemClock } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { misunderstood, noteMisunderstood, understood } from '../resources/understood.ts'
import { listAndWatch, type WatchScope } from '../store/list-watch.ts'
import type { ObjectStore } from '../store/objects.ts'

/** `namespace/name`, or `name` for cluster-scoped objects: the key of queues and caches. */
export function keyOf(object: {
  readonly metadata: { readonly name: string; readonly namespace?: string }
}): string {
  const { name, namespace } = object.metadata
  return namespace === undefined ? name : `${namespace}/${name}`
}

/** The reverse of `keyOf`. */
export function refOf(key: string): { namespace?: string; name: string } {
  const slash = key.indexOf('/')
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) }
}

/**
 * A local copy of every object of a kind, kept by list and watch. It may lag: decide on fresh reads, use this for
 * triggers and indexes. Its objects are as `understood` gives them.
 */
export class Informer<T extends KubeObject> {
  readonly #store: ObjectStore
  readonly #kind: ResourceDefinition<T>
  readonly #log: Log
  readonly #clock: Clock
  readonly #scope: WatchScope
  readonly #objects = new Map<string, T>()
  readonly #listeners = new Set<(key: string, object: T | undefined) => void>()
  readonly #firstSync = Promise.withResolvers<void>()
  #synced = false

  /** @param scope which objects; all of the kind unless given */
  constructor(
    store: ObjectStore,
    kind: ResourceDefinition<T>,
    log: Log,
    clock: Clock = systemClock,
    scope: WatchScope = {},
  ) {
    this.#scope = scope
    this.#store = store
    this.#kind = kind
    this.#log = log
    this.#clock = clock
  }

  /** Whether the first list has arrived. Before it, absence here means nothing. */
  get synced(): boolean {
    return this.#synced
  }

  whenSynced(): Promise<void> {
    return this.#firstSync.promise
  }

  get(key: string): T | undefined {
    return this.#objects.get(key)
  }

  list(): readonly T[] {
    return [...this.#objects.values()]
  }

  /** Called with the key and the object, or undefined where it is gone. @returns unsubscribe */
  onChange(listener: (key: string, object: T | undefined) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Lists and watches until the signal is aborted. Rejects when the store fails in a way that retrying can't mend. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      const events = listAndWatch(this.#store, this.#kind, this.#scope, signal, this.#clock)
      for await (const event of events) {
        if (event.type === 'SYNC') this.#replace(event.take())
        else if (event.type === 'DELETED') this.#set(keyOf(event.object), undefined)
        else this.#set(keyOf(event.object), event.object)
      }
    } catch (error) {
      if (signal.aborted) return
      this.#log.error('informer ended', { kind: this.#kind.kind, message: messageOf(error) })
      throw error
    }
  }

  #replace(objects: readonly T[]): void {
    const fresh = new Map(objects.map((object) => [keyOf(object), object]))
    for (const key of [...this.#objects.keys()]) if (!fresh.has(key)) this.#set(key, undefined)
    for (const [key, object] of fresh) {
      if (this.#objects.get(key)?.metadata.resourceVersion !== object.metadata.resourceVersion)
        this.#set(key, object)
    }
    this.#synced = true
    this.#firstSync.resolve()
  }

  #set(key: string, object: T | undefined): void {
    const known = object && lean(understood(this.#kind, object))
    if (known) this.#objects.set(key, known)
    else this.#objects.delete(key)
    for (const listener of this.#listeners) {
      try {
        listener(key, known)
      } catch (error) {
        // One reader's mistake must not end the copy that all others read.
        this.#log.error('listener of objects failed', { kind: this.#kind.kind, key, err: error })
      }
    }
  }
}

/** Without the account of who owns what, which no controller reads and which is as large as a small spec. */
function lean<T extends KubeObject>(object: T): T {
  const { managedFields, ...metadata } = object.metadata
  if (!managedFields) return object
  const why = misunderstood(object)
  const copy = { ...object, metadata }
  return why === undefined ? copy : noteMisunderstood(copy, why)
}
