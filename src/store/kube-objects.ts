import type { Clock } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { parse, parseStatus, withDefaults } from '../resources/parse.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError, isReason } from './errors.ts'
import type { KubeHttp } from './kube-http.ts'
import { kubePath, type Query } from './kube-paths.ts'
import { watchKube } from './kube-watch.ts'
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
import { invalid, metadataCauses } from './validate.ts'

export interface KubeObjectsOptions {
  readonly http: KubeHttp
  readonly clock: Clock
  readonly random?: () => number
  /** Items that a page has when a whole list is read. */
  readonly pageItems?: number
  /** After so long a watch is taken up anew, ms. */
  readonly watchMs?: number
  /** How long after that a watch counts as dead, ms. */
  readonly graceMs?: number
}

const defaultPageItems = 500
/** Writes without a version are made to the version that is read right before; others may write in between. */
const writeTries = 10
/** Whole lists that grew too old while they were read page by page, before one is read at once. */
const listTries = 3

/**
 * Objects that a Kubernetes API server keeps, or another PlasmaVMC's: Kubernetes' REST dialect, no more than both can do.
 * What is written is checked here first, by the same rules as with every store, so that errors are the same; the server
 * has the last word. See docs/adr/0011-kubernetes-store.md.
 */
export class KubeObjects implements ObjectStore {
  readonly #http: KubeHttp
  readonly #options: KubeObjectsOptions

  constructor(options: KubeObjectsOptions) {
    this.#http = options.http
    this.#options = options
  }

  async get<T extends KubeObject>(kind: ResourceDefinition<T>, ref: Ref): Promise<T> {
    return shown(kind, await this.#http.json({ method: 'GET', path: pathOf(kind, ref) }))
  }

  async list<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: ListOptions = {},
  ): Promise<ObjectList<T>> {
    const { limit, continue: token, resourceVersion } = options
    if (token === '') throw new ApiError('BadRequest', 'continue: Invalid value: "": must not be empty')
    if (token !== undefined) return this.#page(kind, options)
    if (resourceVersion !== undefined) requireVersion(resourceVersion)
    if (limit !== undefined && limit > 0) return this.#page(kind, options)
    const { pageItems = defaultPageItems } = this.#options
    for (let i = 0; i < listTries; i += 1) {
      try {
        return await this.#pages(kind, { ...options, limit: pageItems })
      } catch (error) {
        // What was asked for at a version does not come back.
        if (!isReason(error, 'Expired') || resourceVersion !== undefined) throw error
      }
    }
    return this.#page(kind, { ...options, limit: 0 })
  }

  async create<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    if (object.metadata?.resourceVersion)
      throw new ApiError('BadRequest', 'resourceVersion should not be set on objects to be created')
    check(kind, withName(object))
    const path = kubePath(kind, { namespace: object.metadata.namespace })
    const send = async (query: Query) =>
      shown(kind, await this.#http.json({ method: 'POST', path, query, body: object }))
    const { uid } = object.metadata
    if (!options.restoreUid || uid === undefined) return send(dryRun(options))
    // A server that does not know of it would quietly give another uid: that is found out before anything is written.
    const restore = { restoreUid: 'true' }
    const tried = await send({ ...restore, dryRun: 'All' })
    if (tried.metadata.uid !== uid) throw noRestore(uid)
    return options.dryRun ? tried : send(restore)
  }

  async update<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    check(kind, object)
    const path = `${pathOf(kind, object.metadata)}${kind.finalized && options.finalize ? '/finalize' : ''}`
    return this.#put(kind, object, path, options)
  }

  async updateStatus<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const parsed = parseStatus(kind, object.status)
    if (!parsed.ok) throw invalid(kind, object.metadata.name, parsed.causes)
    const { name, namespace, uid, resourceVersion } = object.metadata
    // The rest counts for nothing, so it is not sent: it may be what no server takes.
    const sent = {
      ...{ apiVersion: apiVersionOf(kind), kind: kind.kind, status: object.status },
      metadata: {
        name,
        ...(namespace !== undefined && { namespace }),
        ...(uid !== undefined && { uid }),
        ...(resourceVersion !== undefined && { resourceVersion }),
      },
    } as unknown as T
    const path = `${pathOf(kind, object.metadata)}${kind.hasStatus ? '/status' : ''}`
    return this.#put(kind, sent, path, options)
  }

  async delete<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    ref: Ref,
    options: DeleteOptions = {},
  ): Promise<T> {
    const path = pathOf(kind, ref)
    for (let i = 1; ; i += 1) {
      // What is gone is answered with a Status alone.
      const before = await this.get(kind, ref)
      const { uid = before.metadata.uid, resourceVersion } = options
      const preconditions = { ...(uid && { uid }), ...(resourceVersion !== undefined && { resourceVersion }) }
      const body = {
        ...{ apiVersion: 'v1', kind: 'DeleteOptions', preconditions },
        ...(options.propagation && { propagationPolicy: options.propagation }),
        ...(options.dryRun && { dryRun: ['All'] }),
      }
      try {
        const answer = await this.#http.json({ method: 'DELETE', path, body })
        return isRecord(answer) && answer['kind'] === 'Status' ? before : shown(kind, answer)
      } catch (error) {
        // Another object of that name, which the caller may have meant just as well.
        const again = options.uid === undefined && resourceVersion === undefined && i < writeTries
        if (!again || !isReason(error, 'Conflict')) throw error
      }
    }
  }

  async *watch<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const { namespace, labelSelector, resourceVersion, signal } = options
    // To Kubernetes this means "whatever there is now", with events that never happened.
    if (resourceVersion === '') throw nowhere(resourceVersion)
    requireVersion(resourceVersion)
    const { http, clock, watchMs, graceMs, random = Math.random } = this.#options
    const frames = watchKube({
      ...{ http, clock, random, resourceVersion, signal, path: kubePath(kind, { namespace }) },
      query: { labelSelector: labelSelector || undefined },
      ...(watchMs !== undefined && { watchMs }),
      ...(graceMs !== undefined && { graceMs }),
    })
    try {
      for await (const { type, object } of frames) yield { type, object: shown(kind, object) }
    } catch (error) {
      // As with every store.
      throw isReason(error, 'Expired') ? goneLike(error) : error
    }
  }

  async #page<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: ListOptions,
  ): Promise<ObjectList<T>> {
    const { namespace, labelSelector, limit, continue: token, name } = options
    // A token says at which version its list is.
    const at = token === undefined ? options.resourceVersion : undefined
    const query = {
      labelSelector: labelSelector || undefined,
      fieldSelector: name === undefined ? undefined : `metadata.name=${name}`,
      limit: limit !== undefined && limit > 0 ? String(limit) : undefined,
      continue: token,
      ...(at !== undefined && { resourceVersion: at, resourceVersionMatch: 'Exact' }),
    }
    const call = { method: 'GET', path: kubePath(kind, { namespace }), query } as const
    const body = await this.#http.json(call).catch((error: unknown) => {
      throw at !== undefined && isUnknownVersion(error) ? goneLike(error) : error
    })
    if (!isRecord(body) || !isRecord(body['metadata'])) throw notList(kind)
    const { resourceVersion, continue: next, remainingItemCount: remaining } = body['metadata']
    const items = body['items'] ?? []
    if (!Array.isArray(items) || typeof resourceVersion !== 'string') throw notList(kind)
    return {
      items: items.map((item) => shown(kind, item)),
      resourceVersion,
      ...(typeof next === 'string' && next !== '' && { continue: next }),
      ...(typeof remaining === 'number' && { remainingItemCount: remaining }),
    }
  }

  async #pages<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    options: ListOptions,
  ): Promise<ObjectList<T>> {
    const first = await this.#page(kind, options)
    const items = [...first.items]
    for (let token = first.continue; token !== undefined; ) {
      const page = await this.#page(kind, { ...options, continue: token })
      items.push(...page.items)
      token = page.continue
    }
    return { items, resourceVersion: first.resourceVersion }
  }

  /** Kubernetes takes no update of a custom resource that names no version: then it is that of now. */
  async #put<T extends KubeObject>(
    kind: ResourceDefinition<T>,
    object: T,
    path: string,
    options: WriteOptions,
  ): Promise<T> {
    const send = async (body: T) =>
      shown(kind, await this.#http.json({ method: 'PUT', path, query: dryRun(options), body: sent(body) }))
    if (object.metadata.resourceVersion !== undefined) return send(object)
    for (let i = 1; ; i += 1) {
      const { metadata } = await this.get(kind, object.metadata)
      const { resourceVersion = '' } = metadata
      try {
        return await send({ ...object, metadata: { ...object.metadata, resourceVersion } })
      } catch (error) {
        if (i >= writeTries || !isReason(error, 'Conflict')) throw error
        // Another object than the caller means: trying again does not mend it.
        if (object.metadata.uid !== undefined && object.metadata.uid !== metadata.uid) throw error
      }
    }
  }
}

function pathOf(kind: ResourceDefinition, { namespace, name }: Ref): string {
  return kubePath(kind, { namespace, name })
}

const dryRun = ({ dryRun: asked }: WriteOptions): Query => ({ dryRun: asked ? 'All' : undefined })

/** What a server answered, as every store shows it: defaults applied, without the bookkeeping of server-side apply. */
function shown<T extends KubeObject>(kind: ResourceDefinition<T>, answer: unknown): T {
  if (!isRecord(answer) || !isRecord(answer['metadata']))
    throw new ApiError('InternalError', `the API server answered with no ${kind.kind}`)
  const { managedFields: _m, selfLink: _s, ...metadata } = answer['metadata']
  // The items of a list do not say what they are.
  const object = { ...answer, apiVersion: apiVersionOf(kind), kind: kind.kind, metadata }
  return withDefaults(kind, object as unknown as T)
}

/** Without the time of a deletion, which counts for nothing: Kubernetes refuses another one than it knows. */
function sent<T extends KubeObject>(object: T): T {
  const { deletionTimestamp: _t, deletionGracePeriodSeconds: _s, ...metadata } = object.metadata
  return { ...object, metadata }
}

/** One with the beginning of a name only is checked as if it had one. */
function withName<T extends KubeObject>(object: T): T {
  const { name, generateName } = object.metadata
  if (name || !generateName) return object
  return { ...object, metadata: { ...object.metadata, name: `${generateName}xxxxx` } }
}

/** @throws ApiError Invalid with every cause, as with every store */
function check(kind: ResourceDefinition, object: KubeObject): void {
  const parsed = parse(kind, object)
  const causes = [...metadataCauses(kind, object), ...(parsed.ok ? [] : parsed.causes)]
  if (causes.length > 0) throw invalid(kind, object.metadata?.name ?? '', causes)
}

/** @throws ApiError BadRequest, Gone for one that names no moment */
function requireVersion(text: string): void {
  // To Kubernetes it means "whatever there is now".
  if (text === '0') throw nowhere(text)
  // Kubernetes calls this an error of its own, which would be tried again.
  if (!/^\d+$/.test(text))
    throw new ApiError('BadRequest', `resourceVersion: Invalid value: "${text}": must be a number`)
}

function nowhere(version: string): ApiError {
  return new ApiError('Gone', `resourceVersion: "${version}" names no moment: list first`)
}

/** As every store says that a version is too old, or not yet there. */
function goneLike({ message, details }: ApiError): ApiError {
  return new ApiError('Gone', message, details)
}

/** Whether a list is refused as its version is compacted, or has not come. */
function isUnknownVersion(error: unknown): error is ApiError {
  if (isReason(error, 'Expired')) return true
  const { causes = [] } = isReason(error, 'Timeout') ? error.details : {}
  return causes.some(({ reason }) => reason === 'ResourceVersionTooLarge')
}

function notList(kind: ResourceDefinition): ApiError {
  return new ApiError('InternalError', `the API server answered with no list of ${kind.plural}`)
}

function noRestore(uid: string): ApiError {
  const hint =
    'Kubernetes gives each object a new uid: a QEMU that runs already can only be adopted where PlasmaVMC keeps the store'
  return new ApiError('BadRequest', `metadata.uid: this API server does not restore ${uid}`, {}, { hint })
}
