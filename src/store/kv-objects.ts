import { isDeepStrictEqual } from 'node:util'
import { type Clock, rfc3339 } from '../lib/clock.ts'
import type { KubeObject, ObjectMeta, ResourceDefinition } from '../resources/define.ts'
import { parse, withDefaults, withoutDefaults } from '../resources/parse.ts'
import { ApiError } from './errors.ts'
import type { Kv, KvEntry } from './kv.ts'
import { parseSelector, type Selector } from './labels.ts'
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
import { detailsOf, invalid, metadataCauses, nameIn } from './validate.ts'

/** etcd's limit on a request, which Kubernetes' users know as the limit on an object. */
const maxObjectBytes = 1.5 * 1024 * 1024
const cacheLimit = 20_000
/** The next write of an object that changed in between: the store of one process settles within a few tries. */
const deleteTries = 10

/** Kubernetes' object semantics over any revisioned Kv. */
export class KvObjects implements ObjectStore {
  readonly #kv: Kv
  readonly #clock: Clock
  readonly #newUid: () => string
  /** JSON with defaults by key, good for one revision: long lists are joined, not made anew. */
  readonly #rendered = new Map<string, { readonly revision: bigint; readonly text: string }>()

  constructor(kv: Kv, options: { readonly clock: Clock; readonly newUid: () => string }) {
    this.#kv = kv
    this.#clock = options.clock
    this.#newUid = options.newUid
  }

  async get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    const entry = await this.#kv.get(keyFor(kind, ref))
    if (!entry) throw notFound(kind, ref.name)
    return withDefaults(kind, stored<T>(entry))
  }

  async list<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: ListOptions = {},
  ): Promise<ObjectList<T>> {
    const selector = parseSelector(options.labelSelector)
    const page = await this.#page(kind, options, selector)
    return { ...page, items: page.entries.map((entry) => withDefaults(kind, stored<T>(entry))) }
  }

  /** As `list`, but each object as its JSON text: what a server sends. */
  async listRaw(kind: ResourceDefinition, options: ListOptions = {}): Promise<ObjectList<string>> {
    const selector = parseSelector(options.labelSelector)
    const page = await this.#page(kind, options, selector)
    return { ...page, items: page.entries.map((entry) => this.#render(kind, entry)) }
  }

  async create<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const parsed = check(kind, named(object, this.#newUid))
    const { metadata, status: _, ...body } = parsed
    const fresh = {
      ...(kind.hasStatus ? body : { ...body, ...('status' in parsed && { status: parsed.status }) }),
      metadata: this.#freshMeta(metadata, options),
    } as T
    const key = keyFor(kind, fresh.metadata)
    const text = serialize(kind, fresh)
    if (options.restoreUid) await this.#refuseTakenUid(kind, fresh.metadata.uid)
    if (options.dryRun) {
      if (await this.#kv.get(key)) throw alreadyExists(kind, fresh.metadata.name)
      return withDefaults(kind, fresh)
    }
    const revision = await this.#kv.put(key, text, 0n)
    if (revision === undefined) throw alreadyExists(kind, fresh.metadata.name)
    return withDefaults(kind, withRevision(fresh, revision))
  }

  update<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    return this.#write(kind, object, options, (before, next) => {
      const metadata = keptMeta(before.metadata, next.metadata)
      const { status: _, ...body } = next
      const status = kind.hasStatus ? before.status : next.status
      const merged = { ...body, metadata, ...(status !== undefined && { status }) } as T
      if (!isDeepStrictEqual(plain(specOf(merged)), plain(specOf(before)))) {
        merged.metadata.generation = (before.metadata.generation ?? 0) + 1
      }
      return merged
    })
  }

  updateStatus<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    return this.#write(kind, object, options, (before, next) => ({ ...before, status: next.status }))
  }

  async delete<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    ref: Ref,
    options: DeleteOptions = {},
  ): Promise<T> {
    const key = keyFor(kind, ref)
    for (let i = 0; i < deleteTries; i += 1) {
      const entry = await this.#kv.get(key)
      if (!entry) throw notFound(kind, ref.name)
      const object = stored<T>(entry)
      checkPreconditions(kind, object, options)
      const shown = withDefaults(kind, object)
      if (options.dryRun) return shown
      if (!object.metadata.finalizers?.length) {
        const revision = await this.#kv.delete(key, entry.revision)
        if (revision !== undefined) return withRevision(shown, revision)
      } else if (object.metadata.deletionTimestamp !== undefined) return shown
      else {
        const deletionTimestamp = rfc3339(this.#clock.now())
        const generation = (object.metadata.generation ?? 0) + 1
        const marked = {
          ...object,
          metadata: { ...object.metadata, deletionTimestamp, deletionGracePeriodSeconds: 0, generation },
        }
        const revision = await this.#kv.put(key, serialize(kind, marked), entry.revision)
        if (revision !== undefined) return withDefaults(kind, withRevision(marked, revision))
      }
    }
    throw conflict(kind, ref.name)
  }

  async *watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const selector = parseSelector(options.labelSelector)
    const from = revisionOf(options.resourceVersion)
    for await (const event of this.#kv.watch(prefixFor(kind, options.namespace), from, options.signal)) {
      const parseText = (text: string) => JSON.parse(text) as T
      const matches = (object: T | undefined) => object !== undefined && selector(object.metadata.labels)
      const before = event.previous === undefined ? undefined : parseText(event.previous.value)
      const after = event.type === 'put' ? parseText(event.value) : undefined
      const was = matches(before)
      const is = matches(after)
      if (!was && !is) continue
      const type = is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED'
      // An object that leaves the selection is shown as it is now; one that is gone as it last was.
      const object = (after ?? before) as T
      yield { type, object: withDefaults(kind, withRevision(object, event.revision)) }
    }
  }

  async #write<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions,
    merge: (before: T, next: T) => T,
  ): Promise<T> {
    const key = keyFor(kind, object.metadata)
    const entry = await this.#kv.get(key)
    if (!entry) throw notFound(kind, object.metadata.name)
    const before = stored<T>(entry)
    const { uid, resourceVersion } = object.metadata
    checkPreconditions(kind, before, {
      ...(uid !== undefined && { uid }),
      ...(resourceVersion !== undefined && { resourceVersion }),
    })
    const defaulted = withDefaults(kind, before)
    const checked = check(kind, object)
    const next = merge(before, withoutDefaults(kind, checked, { stored: before, defaulted }))
    if (same(before, next)) return defaulted
    const { deletionTimestamp, finalizers } = next.metadata
    const removed = deletionTimestamp !== undefined && !finalizers?.length
    const text = serialize(kind, next)
    if (options.dryRun) return withDefaults(kind, next)
    const revision = removed
      ? await this.#kv.delete(key, entry.revision)
      : await this.#kv.put(key, text, entry.revision)
    if (revision === undefined) throw conflict(kind, object.metadata.name)
    return withDefaults(kind, withRevision(next, revision))
  }

  #freshMeta(metadata: ObjectMeta, options: WriteOptions): ObjectMeta {
    const {
      resourceVersion: _r,
      deletionTimestamp: _d,
      deletionGracePeriodSeconds: _g,
      uid,
      ...kept
    } = metadata
    const {
      generateName: _n,
      selfLink: _s,
      managedFields: _m,
      ...rest
    } = kept as ObjectMeta & Record<string, unknown>
    const keepUid = options.restoreUid && uid !== undefined
    return {
      ...rest,
      uid: keepUid ? uid : this.#newUid(),
      generation: 1,
      creationTimestamp: rfc3339(this.#clock.now()),
    }
  }

  async #refuseTakenUid(kind: ResourceDefinition, uid: string | undefined): Promise<void> {
    const { entries } = await this.#kv.list(prefixFor(kind))
    const taken = entries.map((entry) => stored(entry)).find((object) => object.metadata.uid === uid)
    if (taken)
      throw new ApiError(
        'AlreadyExists',
        `the uid ${uid} is that of ${nameIn(kind, taken.metadata.name)}`,
        detailsOf(kind, taken.metadata.name),
      )
  }

  async #page(kind: ResourceDefinition, options: ListOptions, selector: Selector) {
    const after = options.continue === undefined ? undefined : continueKey(kind, options.continue)
    const { limit } = options
    const page = await this.#kv.list(prefixFor(kind, options.namespace), {
      ...(after !== undefined && { after }),
      ...(limit !== undefined && limit > 0 && { limit }),
    })
    const entries = options.labelSelector
      ? page.entries.filter((entry) => selector(stored(entry).metadata.labels))
      : page.entries
    const more = page.more === undefined ? {} : { continue: Buffer.from(page.more).toString('base64url') }
    return { entries, resourceVersion: String(page.revision), ...more }
  }

  #render(kind: ResourceDefinition, entry: KvEntry): string {
    const known = this.#rendered.get(entry.key)
    if (known?.revision === entry.revision) return known.text
    const text = JSON.stringify(withDefaults(kind, stored(entry)))
    if (this.#rendered.size >= cacheLimit) this.#rendered.clear()
    this.#rendered.set(entry.key, { revision: entry.revision, text })
    return text
  }
}

function keyFor(kind: ResourceDefinition, ref: Ref): string {
  return `${prefixFor(kind, kind.namespaced ? (ref.namespace ?? '') : undefined)}${ref.name}`
}

/** `/group/plural/`, then `namespace/` where the kind has one. The core group is `core`. */
function prefixFor(kind: ResourceDefinition, namespace?: string): string {
  const base = `/${kind.group || 'core'}/${kind.plural}/`
  return namespace === undefined ? base : `${base}${namespace}/`
}

function continueKey(kind: ResourceDefinition, token: string): string {
  const key = Buffer.from(token, 'base64url').toString()
  if (!key.startsWith(prefixFor(kind)))
    throw new ApiError('BadRequest', 'continue: the token is not from such a list')
  return key
}

function revisionOf(text: string): bigint {
  if (!/^\d{1,18}$/.test(text)) throw new ApiError('BadRequest', `resourceVersion: Invalid value: "${text}"`)
  return BigInt(text)
}

function stored<T extends KubeObject>(entry: KvEntry): T {
  return withRevision(JSON.parse(entry.value) as T, entry.revision)
}

function withRevision<T extends KubeObject>(object: T, revision: bigint): T {
  return { ...object, metadata: { ...object.metadata, resourceVersion: String(revision) } }
}

function named<T extends KubeObject>(object: T, newUid: () => string): T {
  const { name, generateName } = object.metadata as ObjectMeta & { generateName?: string }
  if (name || !generateName) return object
  return { ...object, metadata: { ...object.metadata, name: `${generateName}${newUid().slice(0, 5)}` } }
}

/** The object as it is stored. @throws ApiError Invalid with every cause */
function check<T extends KubeObject>(kind: ResourceDefinition<T>, object: T): T {
  const parsed = parse(kind, object)
  const name = object.metadata?.name ?? ''
  const causes = [...metadataCauses(kind, object), ...(parsed.ok ? [] : parsed.causes)]
  if (!parsed.ok || causes.length > 0) throw invalid(kind, name, causes)
  return parsed.stored
}

function serialize(kind: ResourceDefinition, object: KubeObject): string {
  const { resourceVersion: _, ...metadata } = object.metadata
  const text = JSON.stringify({ ...object, metadata })
  if (Buffer.byteLength(text) <= maxObjectBytes) return text
  throw new ApiError(
    'RequestEntityTooLarge',
    `${nameIn(kind, metadata.name)} is too large: the limit is ${maxObjectBytes} bytes`,
    detailsOf(kind, metadata.name),
  )
}

/** What users may change in metadata; the rest stays as the system made it. */
function keptMeta(before: ObjectMeta, next: ObjectMeta): ObjectMeta {
  const { labels, annotations, finalizers, ownerReferences } = next
  const { labels: _l, annotations: _a, finalizers: _f, ownerReferences: _o, ...system } = before
  // While an object is being deleted, finalizers may only go.
  const kept =
    before.deletionTimestamp === undefined
      ? finalizers
      : finalizers?.filter((name) => before.finalizers?.includes(name))
  return {
    ...system,
    ...(labels && { labels }),
    ...(annotations && { annotations }),
    ...(ownerReferences && { ownerReferences }),
    ...(kept?.length && { finalizers: kept }),
  }
}

function specOf(object: KubeObject): unknown {
  const { metadata: _m, status: _s, ...rest } = object
  return rest
}

/** Without members that are undefined, as it will be in JSON. */
function plain<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T
}

function same(before: KubeObject, next: KubeObject): boolean {
  return isDeepStrictEqual(plain(before), plain(next))
}

function checkPreconditions(
  kind: ResourceDefinition,
  object: KubeObject,
  wanted: { uid?: string; resourceVersion?: string },
): void {
  const { uid, resourceVersion, name } = object.metadata
  if (wanted.uid !== undefined && wanted.uid !== uid) {
    throw conflict(
      kind,
      name,
      `the UID in the precondition (${wanted.uid}) does not match the UID in record (${uid})`,
    )
  }
  if (wanted.resourceVersion !== undefined && wanted.resourceVersion !== resourceVersion)
    throw conflict(kind, name)
}

function conflict(kind: ResourceDefinition, name: string, why?: string): ApiError {
  const text =
    why ?? 'the object has been modified; please apply your changes to the latest version and try again'
  return new ApiError(
    'Conflict',
    `Operation cannot be fulfilled on ${nameIn(kind, name)}: ${text}`,
    detailsOf(kind, name),
  )
}

function notFound(kind: ResourceDefinition, name: string): ApiError {
  return new ApiError('NotFound', `${nameIn(kind, name)} not found`, detailsOf(kind, name))
}

function alreadyExists(kind: ResourceDefinition, name: string): ApiError {
  return new ApiError('AlreadyExists', `${nameIn(kind, name)} already exists`, detailsOf(kind, name))
}
