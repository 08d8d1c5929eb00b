import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { ApiError } from './errors.ts'
import type {
  DeleteOptions,
  ListOptions,
  ObjectList,
  ObjectStore,
  Ref,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './objects.ts'

/**
 * What a leader writes through where the store itself can't refuse the writes of a leader that another has followed:
 * nothing is sent once its term has ended here, and no update, of object or status, that does not name the version it
 * was made from. A write that was sent before may still arrive: it then holds only where nobody has written since. That is
 * enough for placement and for a person's word; it is not taken to be enough for a take-over that nobody watches.
 */
export class LedObjects implements ObjectStore {
  readonly #objects: ObjectStore
  readonly #epoch: number
  readonly #ended: AbortSignal

  /** @param ended aborted when the term has ended, by the leader's own clock */
  constructor(objects: ObjectStore, epoch: number, ended: AbortSignal) {
    this.#objects = objects
    this.#epoch = epoch
    this.#ended = ended
  }

  get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    return this.#objects.get(kind, ref)
  }

  list<T extends KubeObject>(kind: ResourceDefinition<T>, options?: ListOptions): Promise<ObjectList<T>> {
    return this.#objects.list(kind, options)
  }

  watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>> {
    return this.#objects.watch(kind, options)
  }

  async create<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T> {
    this.#requireTerm()
    return this.#objects.create(kind, object, options)
  }

  async update<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T> {
    this.#requireTerm()
    requireVersion(object)
    return this.#objects.update(kind, object, options)
  }

  async updateStatus<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T> {
    this.#requireTerm()
    requireVersion(object)
    return this.#objects.updateStatus(kind, object, options)
  }

  async delete<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    ref: Ref,
    options?: DeleteOptions,
  ): Promise<T> {
    this.#requireTerm()
    return this.#objects.delete(kind, ref, options)
  }

  #requireTerm(): void {
    if (!this.#ended.aborted) return
    throw new ApiError(
      'ServiceUnavailable',
      `this server was leader of epoch ${this.#epoch}; its term has ended`,
    )
  }
}

function requireVersion({ kind, metadata }: KubeObject): void {
  if (metadata.resourceVersion !== undefined) return
  throw new ApiError(
    'BadRequest',
    `${kind} ${metadata.name}: a leader's update must name the version that it was made from`,
  )
}
