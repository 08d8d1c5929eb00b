import { type Clock, rfc3339 } from '../lib/clock.ts'
import type { KubeObject, ObjectMeta, ResourceDefinition } from '../resources/define.ts'
import { Namespace } from '../resources/kinds.ts'
import { parse, parseStatus, same, withDefaults, withoutDefaults } from '../resources/parse.ts'
import { unknownMembers } from '../resources/understood.ts'
import { deleted, finalized, isHeld } from './deletion.ts'
import { ApiError, isReason } from './errors.ts'
import type { Kv, KvCondition, KvEvent, ListedEntry, Reuse } from './kv.ts'
import { parseSelector } from './labels.ts'
import { alreadyExists, checkPreconditions, conflict, notFound } from './object-errors.ts'
import { continueToken, keyFor, placeOf, prefixFor, revisionOf } from './object-keys.ts'
import { keptMeta, serialize, specOf, stored, withNameLabel, withRevision } from './object-text.ts'
import type {
  DeleteOptions,
  ListOptions,
  ObjectList,
  Ref,
  TextEvent,
  TextStore,
  TextWatchOptions,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './objects.ts'
import { Rendered } from './rendered.ts'
import { type EntryReader, entryReader, ShownEvent, type Test } from './shown-event.ts'
import { detailsOf, finalizerCauses, invalid, metadataCauses, nameIn } from './validate.ts'

/** The next write of an object that changed in between: the store of one process settles within a few tries. */
const deleteTries = 10

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Kubernetes' object semantics over any revisioned Kv. */
export class KvObjects implements TextStore {
  readonly #kv: Kv
  readonly #clock: Clock
  readonly #newUid: () => string
  readonly #reader: EntryReader
  readonly #rendered = new Rendered()
  readonly #shown = new WeakMap<KvEvent, ShownEvent>()
  /** Creates that keep a given uid come one after the other: two at once could both find it free. */
  #restoring: Promise<unknown> = Promise.resolve()

  /** @param options `reader` in place of `entryReader`, for many clients in one process that share what they read */
  constructor(
    kv: Kv,
    options: { readonly clock: Clock; readonly newUid: () => string; readonly reader?: EntryReader },
  ) {
    this.#kv = kv
    this.#reader = options.reader ?? entryReader
    this.#clock = options.clock
    this.#newUid = options.newUid
  }

  async get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    const entry = await this.#kv.get(keyFor(kind, ref))
    if (!entry) throw notFound(kind, ref.name)
    return this.#reader.shown(kind, entry)
  }

  async getStored<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    const entry = await this.#kv.get(keyFor(kind, ref))
    if (!entry) throw notFound(kind, ref.name)
    return this.#reader.stored(entry)
  }

  async list<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: ListOptions = {},
  ): Promise<ObjectList<T>> {
    const page = await this.#page(kind, options)
    return { ...page, items: page.items.map((entry) => this.#reader.shown(kind, entry)) }
  }

  async listText(kind: ResourceDefinition, options: ListOptions = {}): Promise<ObjectList<string>> {
    const page = await this.#page(kind, options, (key, revision) => this.#rendered.known(key, revision))
    const textOf = (entry: ListedEntry) => entry.reused ?? this.#rendered.textOf(kind, entry)
    return { ...page, items: page.items.map(textOf) }
  }

  async create<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    if (object.metadata?.resourceVersion)
      throw new ApiError('BadRequest', 'resourceVersion should not be set on objects to be created')
    const checked = check(kind, named(object, this.#newUid))
    const metadata = withNameLabel(kind, this.#freshMeta(checked.stored.metadata, options))
    const fresh = managed(undefined, { ...withoutStatus(kind, checked.stored), metadata }, options)
    const shown = kind.finalized
      ? withDefaults(kind, fresh)
      : { ...withoutStatus(kind, checked.object), metadata: fresh.metadata }
    if (!options.restoreUid || metadata.uid !== object.metadata.uid)
      return this.#insert(kind, fresh, shown, options)
    const created = this.#restoring.then(async () => {
      await this.#refuseTakenUid(kind, metadata)
      return this.#insert(kind, fresh, shown, options)
    })
    this.#restoring = created.catch(() => {})
    return created
  }

  async #insert<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    fresh: T,
    shown: T,
    options: WriteOptions,
  ): Promise<T> {
    const key = keyFor(kind, fresh.metadata)
    const text = serialize(kind, fresh)
    if (options.dryRun) {
      if (await this.#kv.get(key)) throw alreadyExists(kind, fresh.metadata.name)
      return shown
    }
    const { within, provided } = options
    const condition = provided ?? (within && namespaceCondition(within))
    const revision = await this.#kv.put(key, text, 0n, condition)
    if (revision !== undefined) return withRevision(shown, revision)
    if (!condition || (await this.#kv.get(key))) throw alreadyExists(kind, fresh.metadata.name)
    const what = within ? `namespace ${within.name}` : 'what it was made with'
    throw conflict(kind, fresh.metadata.name, `${what} has changed meanwhile`)
  }

  update<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    return this.#write(kind, object, options, (before, next) => {
      const causes = finalizerCauses(before, next)
      if (causes.length > 0) throw invalid(kind, before.metadata.name, causes)
      const metadata = withNameLabel(kind, keptMeta(before.metadata, next.metadata))
      const { status: _, ...body } = next
      const status = kind.hasStatus ? before.status : next.status
      const whole = { ...body, metadata, ...(status !== undefined && { status }) } as T
      const merged = kind.finalized ? finalized(before, whole, options.finalize ?? false) : whole
      if (!same(specOf(merged), specOf(before))) {
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
    return this.#write(
      kind,
      object,
      options,
      (before, next) => {
        const strange = unknownMembers(kind, before.status)
        return { ...before, status: next.status && { ...strange, ...next.status } }
      },
      true,
    )
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
      const next = deleted(kind, object, options, rfc3339(this.#clock.now()))
      const shown = withDefaults(kind, next)
      if (options.dryRun || (next === object && isHeld(kind, next))) return shown
      const revision = isHeld(kind, next)
        ? await this.#kv.put(key, serialize(kind, next), entry.revision)
        : await this.#kv.delete(key, entry.revision)
      if (revision === undefined) continue
      if (!isHeld(kind, next)) this.#rendered.forget(key)
      return withRevision(shown, revision)
    }
    throw conflict(kind, ref.name)
  }

  watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    // Worked out for this watcher alone: what it gets is its own to keep.
    const shownOf = (event: KvEvent) => new ShownEvent(kind, event, this.#rendered, this.#reader)
    return this.#events(kind, options, shownOf, (shown, type) => ({
      type,
      object: shown.objectFor(type) as T,
    }))
  }

  watchText(kind: ResourceDefinition, options: TextWatchOptions): AsyncGenerator<TextEvent> {
    const shownOf = (event: KvEvent) => {
      const known = this.#shown.get(event) ?? new ShownEvent(kind, event, this.#rendered)
      this.#shown.set(event, known)
      return known
    }
    return this.#events(kind, options, shownOf, (shown, type, revision) => ({
      ...{ type, resourceVersion: String(revision) },
      text: () => shown.textFor(type),
      object: () => shown.objectFor(type),
    }))
  }

  async *#events<E>(
    kind: ResourceDefinition,
    options: TextWatchOptions,
    shownOf: (event: KvEvent) => ShownEvent,
    made: (shown: ShownEvent, type: WatchEvent<KubeObject>['type'], revision: bigint) => E,
  ): AsyncGenerator<E> {
    const { labelSelector, matches, namespace, resourceVersion, signal, progress } = options
    const selector = parseSelector(labelSelector)
    const selected: Test = ({ metadata }) => selector(metadata.labels)
    const tests = [...(labelSelector ? [selected] : []), ...(matches ? [matches] : [])]
    const test = tests.length === 0 ? undefined : (object: KubeObject) => tests.every((one) => one(object))
    for await (const event of this.#kv.watch(
      prefixFor(kind, namespace),
      revisionOf(resourceVersion),
      signal,
      progress,
    )) {
      const shown = shownOf(event)
      const type = shown.typeFor(test)
      if (type) yield made(shown, type, event.revision)
    }
  }

  async #write<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions,
    merge: (before: T, next: T) => T,
    statusOnly = false,
  ): Promise<T> {
    const key = keyFor(kind, object.metadata)
    const entry = await this.#kv.get(key)
    if (!entry) throw notFound(kind, object.metadata.name)
    const before = this.#reader.stored<T>(entry)
    const { uid, resourceVersion } = object.metadata
    checkPreconditions(kind, before, {
      ...(uid !== undefined && { uid }),
      ...(resourceVersion !== undefined && { resourceVersion }),
    })
    const defaulted = this.#reader.shown(kind, entry, before)
    const checked = statusOnly ? withStatusOf(kind, before, object) : checkChange(kind, defaulted, object)
    const changed = merge(before, withoutDefaults(kind, checked, { stored: before, defaulted }))
    const next = managed(before, changed, options)
    if (same(before, next)) return defaulted
    const removed = next.metadata.deletionTimestamp !== undefined && !isHeld(kind, next)
    const text = serialize(kind, next)
    if (options.dryRun) return withDefaults(kind, next)
    const revision = removed
      ? await this.#kv.delete(key, entry.revision)
      : await this.#kv.put(key, text, entry.revision)
    if (revision === undefined) throw conflict(kind, object.metadata.name)
    if (removed) this.#rendered.forget(key)
    return this.#reader.shown(kind, { key, value: text, revision }, withRevision(next, revision))
  }

  #freshMeta(metadata: ObjectMeta, options: WriteOptions): ObjectMeta {
    const {
      resourceVersion: _r,
      deletionTimestamp: _d,
      deletionGracePeriodSeconds: _g,
      uid,
      ...kept
    } = metadata
    const { selfLink: _s, managedFields: _m, ...rest } = kept as ObjectMeta & Record<string, unknown>
    const keepUid = options.restoreUid && uid !== undefined
    return {
      ...rest,
      uid: keepUid ? uid : this.#newUid(),
      generation: 1,
      creationTimestamp: rfc3339(this.#clock.now()),
    }
  }

  async #refuseTakenUid(kind: ResourceDefinition, { name, uid = '' }: ObjectMeta): Promise<void> {
    // It names folders and processes.
    if (!uuid.test(uid)) {
      const message = `Invalid value: ${JSON.stringify(uid.slice(0, 100))}: must be a UUID in lower case`
      throw invalid(kind, name, [{ reason: 'FieldValueInvalid', field: 'metadata.uid', message }])
    }
    const { entries } = await this.#kv.list(prefixFor(kind))
    const taken = entries.map((entry) => stored(entry)).find((object) => object.metadata.uid === uid)
    if (taken)
      throw new ApiError(
        'AlreadyExists',
        `the uid ${uid} is that of ${nameIn(kind, taken.metadata.name)}`,
        detailsOf(kind, taken.metadata.name),
      )
  }

  /** With a selector a page may have less than `limit`, even nothing, and go on: Kubernetes allows that. */
  async #page(kind: ResourceDefinition, options: ListOptions, reuse?: Reuse) {
    const { namespace, limit, labelSelector, name, resourceVersion } = options
    if (name !== undefined) return this.#one(kind, options, name)
    const selector = parseSelector(labelSelector)
    const prefix = prefixFor(kind, namespace)
    const exact = resourceVersion === undefined ? undefined : { at: revisionOf(resourceVersion) }
    const place = options.continue === undefined ? exact : placeOf(options.continue, prefix)
    const page = await this.#kv
      .list(prefix, {
        ...place,
        ...(limit !== undefined && limit > 0 && { limit }),
        // What selects by labels looks at the values.
        ...(reuse && !labelSelector && { reuse }),
      })
      .catch((error: unknown) => {
        if (options.continue === undefined || !isReason(error, 'Gone')) throw error
        const message = 'the provided continue parameter is too old to display a consistent list result'
        throw new ApiError('Expired', message, {}, { hint: 'list anew, without it' })
      })
    const { entries, revision, more } = page
    const items = labelSelector ? entries.filter((entry) => selector(stored(entry).metadata.labels)) : entries
    const token = more === undefined ? {} : { continue: continueToken({ after: more, at: revision }) }
    const remaining = page.left === undefined || labelSelector ? {} : { remainingItemCount: page.left }
    return { items, resourceVersion: String(revision), ...token, ...remaining }
  }

  /** A list of the one object of a name, or of none. */
  async #one(kind: ResourceDefinition, options: ListOptions, name: string) {
    const { namespace, labelSelector, resourceVersion } = options
    const key = keyFor(kind, { name, ...(namespace !== undefined && { namespace }) })
    const at = resourceVersion === undefined ? {} : { at: revisionOf(resourceVersion) }
    const { entries, revision } = await this.#kv.list(key, { ...at, limit: 1 })
    const selector = parseSelector(labelSelector)
    const items = entries.filter((entry) => entry.key === key && selector(stored(entry).metadata.labels))
    return { items, resourceVersion: String(revision) }
  }
}

function namespaceCondition({ name, resourceVersion }: NonNullable<WriteOptions['within']>): KvCondition {
  return { key: keyFor(Namespace as ResourceDefinition, { name }), revision: revisionOf(resourceVersion) }
}

/** The object with the account of who owns what of it. */
function managed<T extends KubeObject>(before: T | undefined, next: T, { managedFields }: WriteOptions): T {
  if (!managedFields) return next
  const { managedFields: _, ...metadata } = next.metadata
  const entries = managedFields(before, next)
  return {
    ...next,
    metadata: entries.length > 0 ? { ...metadata, managedFields: entries } : metadata,
  }
}

function named<T extends KubeObject>(object: T, newUid: () => string): T {
  const { name, generateName } = object.metadata
  if (name || !generateName) return object
  return { ...object, metadata: { ...object.metadata, name: `${generateName}${newUid().slice(0, 5)}` } }
}

function withoutStatus<T extends KubeObject>(kind: ResourceDefinition<T>, object: T): T {
  if (!kind.hasStatus) return object
  const { status: _, ...rest } = object
  return rest as T
}

/**
 * A status is checked by itself: the rest of what came with it counts for nothing, whatever it is.
 * @throws ApiError Invalid with every cause
 */
function withStatusOf<T extends KubeObject>(kind: ResourceDefinition<T>, before: T, given: T): T {
  const { status: _, ...rest } = before
  const parsed = parseStatus(kind, given.status)
  if (!parsed.ok) throw invalid(kind, before.metadata.name, parsed.causes)
  return { ...rest, ...(parsed.stored !== undefined && { status: parsed.stored }) } as T
}

/** An object as it is stored that takes the place of another, as that is shown. @throws ApiError Invalid with every cause */
function checkChange<T extends KubeObject>(kind: ResourceDefinition<T>, before: T, object: T): T {
  const checked = check(kind, object)
  const causes = kind.changes?.(before as never, checked.object as never) ?? []
  if (causes.length > 0) throw invalid(kind, object.metadata.name, causes)
  return checked.stored
}

/** The object as it is stored, and as it is shown. @throws ApiError Invalid with every cause */
function check<T extends KubeObject>(
  kind: ResourceDefinition<T>,
  object: T,
): { readonly stored: T; readonly object: T } {
  const parsed = parse(kind, object)
  const name = object.metadata?.name ?? ''
  const causes = [...metadataCauses(kind, object), ...(parsed.ok ? [] : parsed.causes)]
  if (!parsed.ok || causes.length > 0) throw invalid(kind, name, causes)
  return parsed
}
