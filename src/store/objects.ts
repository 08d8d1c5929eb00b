import type { KubeObject, ResourceDefinition } from '../resources/define.ts'

/** Names one object. `namespace` is absent for cluster-scoped kinds. */
export interface Ref {
  readonly namespace?: string
  readonly name: string
}

export interface ListOptions {
  readonly namespace?: string
  /** Kubernetes label selector text: `a=b,c!=d,e,!f,g in (h,i)`. */
  readonly labelSelector?: string
  readonly limit?: number
  readonly continue?: string
}

export interface ObjectList<T> {
  readonly items: readonly T[]
  readonly resourceVersion: string
  readonly continue?: string
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
}

export interface WriteOptions {
  readonly dryRun?: boolean
  /**
   * On create, keep the given metadata.uid: a machine that is adopted keeps the identity its QEMU carries.
   * Only stores of our own honour it; Kubernetes assigns uids itself. @throws AlreadyExists where the uid is taken
   */
  readonly restoreUid?: boolean
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
  /** @throws Gone (from the iterator) when the resourceVersion is too old or the reader too slow: list anew. */
  watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>
}
