import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import type { KvCondition, WatchProgress } from './kv.ts'

/** Names one object. `namespace` is absent for cluster-scoped kinds. */
export interface Ref {
  readonly namespace?: string
  readonly name: string
}

export interface ListOptions {
  readonly namespace?: string
  /** Kubernetes label selector text: `a=b,c!=d,e,!f,g in (h,i)`. */
  readonly labelSelector?: string
  /** Most items of a page; a page may have fewer, and only `continue` says whether there are more. */
  readonly limit?: number
  /** From the page before; the list goes on as it was when its first page was made. */
  readonly continue?: string
  /** Only the one of this name, where there is one; needs `namespace` where the kind has one. */
  readonly name?: string
  /** The list as it was at this version; as it is where absent. @throws Gone for one that is too old, or not yet there */
  readonly resourceVersion?: string
}

export interface ObjectList<T> {
  readonly items: readonly T[]
  readonly resourceVersion: string
  readonly continue?: string
  /** How many the pages that follow have in all, where that is known: never with a selector. */
  readonly remainingItemCount?: number
}

export type WatchEvent<T> = {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly object: T
}

export interface WatchOptions {
  readonly namespace?: string
  readonly labelSelector?: string
  /** From a list or an event; events strictly after it follow. */
  readonly resourceVersion: string
  readonly signal: AbortSignal
}

export interface DeleteOptions {
  /** Refuse (Conflict) when the stored object's differ. */
  readonly uid?: string
  readonly resourceVersion?: string
  readonly dryRun?: boolean
  /**
   * What becomes of the objects that name this one as their owner: they go after it, before it, or stay. Unsaid, it is as
   * the finalizers say that are there, else after it. It takes a garbage collector.
   */
  readonly propagation?: 'Background' | 'Foreground' | 'Orphan'
}

export interface WriteOptions {
  readonly dryRun?: boolean
  /** On create: only while the namespace has this version, else Conflict. Only stores of our own honour it. */
  readonly within?: { readonly name: string; readonly resourceVersion: string }
  /** On create, in place of `within`: only while that key of the store has this revision, else Conflict. As there. */
  readonly provided?: KvCondition
  /** On update of a kind that is `finalized`: its spec.finalizers, and nothing else, are replaced. */
  readonly finalize?: boolean
  /**
   * On create, keep the given metadata.uid: a machine that is adopted keeps the identity its QEMU carries.
   * Only stores of our own honour it; Kubernetes assigns uids itself. @throws AlreadyExists where the uid is taken
   */
  readonly restoreUid?: boolean
  /**
   * Works `metadata.managedFields` out from what is stored and what will be, both without defaults; where it is absent
   * they stay as they are. Only stores of our own honour it; Kubernetes keeps its own account.
   */
  readonly managedFields?: (before: KubeObject | undefined, next: KubeObject) => readonly unknown[]
}

/**
 * Where objects are kept, with Kubernetes' semantics and no promise that Kubernetes can't keep.
 * Reads return defaults applied; what is stored is what the user wrote. All rejections are ApiErrors.
 */
export interface ObjectStore {
  /** @throws NotFound */
  get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T>
  list<T extends KubeObject>(kind: ResourceDefinition<T>, options?: ListOptions): Promise<ObjectList<T>>
  /** Fills uid, creationTimestamp, generation 1; drops status where it is a subresource. @throws AlreadyExists, Invalid */
  create<T extends KubeObject>(kind: ResourceDefinition<T>, object: T, options?: WriteOptions): Promise<T>
  /**
   * Replaces all but status and system metadata. With `metadata.resourceVersion` set it must match. Generation grows
   * when the spec changed. An update that changes nothing writes nothing. An update that empties `finalizers` of an
   * object being deleted removes it. @throws NotFound, Conflict, Invalid
   */
  update<T extends KubeObject>(kind: ResourceDefinition<T>, object: T, options?: WriteOptions): Promise<T>
  /** Replaces status only, with the same rules for resourceVersion. @throws NotFound, Conflict, Invalid */
  updateStatus<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T>
  /** Removes, or, while there are finalizers, sets deletionTimestamp. @returns the object as it is or was. */
  delete<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref, options?: DeleteOptions): Promise<T>
  /** An object that no longer fits the selector is DELETED, shown as it last fitted. @throws Gone (from the iterator) when the resourceVersion is too old or the reader too slow: list anew. */
  watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>
}

export interface TextWatchOptions extends WatchOptions {
  /** What else chooses objects; it is asked about an object as it was and as it is, defaults applied. */
  readonly matches?: (object: KubeObject) => boolean
  /** Is told how far the watch is. */
  readonly progress?: WatchProgress
}

/** An event, worked out once for all who watch, and only when it is asked for. */
export interface TextEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly resourceVersion: string
  /** The object as JSON. */
  text(): string
  /** Shared with other watchers: not to be changed. */
  object(): KubeObject
}

/** A store that also gives objects as the JSON text that a server sends. */
export interface TextStore extends ObjectStore {
  /** The object as it is stored, without defaults. @throws NotFound */
  getStored<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T>
  listText(kind: ResourceDefinition, options?: ListOptions): Promise<ObjectList<string>>
  watchText(kind: ResourceDefinition, options: TextWatchOptions): AsyncIterable<TextEvent>
}
