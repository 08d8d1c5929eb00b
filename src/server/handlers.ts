import type { Clock } from '../lib/clock.ts'
import { rfc3339 } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { Namespace } from '../resources/kinds.ts'
import { type Cause, parse } from '../resources/parse.ts'
import { isRecord } from '../resources/prune.ts'
import { toTable } from '../resources/table.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { actionOf, requestAction } from '../resources/vm-actions.ts'
import { ApiError, isReason } from '../store/errors.ts'
import type { ListOptions, ObjectList, ObjectStore, Ref, WriteOptions } from '../store/objects.ts'
import { jsonPatch, mergePatch } from './patch.ts'
import type { ResourcePath } from './path.ts'
import { flag, isDryRun, numberOf, parameter, parseFieldSelector } from './query.ts'

export interface HandlerDeps {
  readonly objects: ObjectStore & {
    listRaw?: (kind: ResourceDefinition, options: ListOptions) => Promise<ObjectList<string>>
  }
  readonly clock: Clock
  readonly newId: () => string
}

export interface Call {
  readonly method: string
  readonly path: ResourcePath
  readonly query: URLSearchParams
  readonly body: unknown
  readonly contentType: string
  readonly table: boolean
}

export interface Answer {
  readonly code: number
  /** A string is JSON text already. */
  readonly body: unknown
  readonly warnings?: readonly string[]
}

/** Patches without a resourceVersion are tried again when somebody else wrote in between. */
const patchTries = 5

/** Does one call on a resource; watches are not calls. @throws ApiError */
export async function handle(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { method, path } = call
  const action = path.subresource === undefined ? undefined : actionOf[path.subresource]
  if (action && path.kind === (VirtualMachine as ResourceDefinition) && method === 'POST')
    return act(call, action, deps)
  if (path.subresource !== undefined && !(path.subresource === 'status' && path.kind.hasStatus)) {
    throw new ApiError('NotFound', `there is no ${path.kind.plural}/${path.subresource}`)
  }
  if (path.name === undefined) {
    if (method === 'GET') return list(call, deps)
    if (method === 'POST') return create(call, deps)
    if (method === 'DELETE') return deleteCollection(call, deps)
  } else if (method === 'GET') return get(call, deps)
  else if (method === 'PUT') return put(call, deps)
  else if (method === 'PATCH') return patch(call, deps)
  else if (method === 'DELETE' && path.subresource === undefined) return remove(call, deps)
  throw new ApiError('MethodNotAllowed', 'the server does not allow this method on the requested resource')
}

function refOf({ path }: Call): Ref {
  return { name: path.name ?? '', ...(path.namespace !== undefined && { namespace: path.namespace }) }
}

function shown(call: Call, objects: readonly KubeObject[], deps: HandlerDeps, metadata = {}): unknown {
  return toTable(call.path.kind, objects, { now: deps.clock.now(), metadata })
}

async function get(call: Call, deps: HandlerDeps): Promise<Answer> {
  const object = await deps.objects.get(call.path.kind, refOf(call))
  return { code: 200, body: call.table ? shown(call, [object], deps) : object }
}

async function list(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { path, query } = call
  const { kind } = path
  const labelSelector = parameter(query, 'labelSelector')
  const limit = numberOf(query, 'limit')
  const token = parameter(query, 'continue')
  const options: ListOptions = {
    ...(path.namespace !== undefined && { namespace: path.namespace }),
    ...(labelSelector && { labelSelector }),
    ...(limit !== undefined && { limit }),
    ...(token && { continue: token }),
  }
  const fieldSelector = parameter(query, 'fieldSelector')
  const metaOf = (page: ObjectList<unknown>) => ({
    resourceVersion: page.resourceVersion,
    ...(page.continue !== undefined && { continue: page.continue }),
  })
  if (deps.objects.listRaw && !fieldSelector && !call.table) {
    const page = await deps.objects.listRaw(kind, options)
    const head = JSON.stringify({
      apiVersion: apiVersionOf(kind),
      kind: `${kind.kind}List`,
      metadata: metaOf(page),
    })
    return { code: 200, body: `${head.slice(0, -1)},"items":[${page.items.join(',')}]}` }
  }
  const page = await deps.objects.list(kind, options)
  const items = page.items.filter(parseFieldSelector(fieldSelector))
  if (call.table) return { code: 200, body: shown(call, items, deps, metaOf(page)) }
  return {
    code: 200,
    body: { apiVersion: apiVersionOf(kind), kind: `${kind.kind}List`, metadata: metaOf(page), items },
  }
}

/** The object a body holds, its place checked against the path. */
function objectOf(call: Call, body: unknown): KubeObject {
  if (!isRecord(body)) throw new ApiError('BadRequest', 'the body must be an object')
  const { kind, namespace, name } = call.path
  const metadata = isRecord(body['metadata']) ? body['metadata'] : {}
  if (namespace !== undefined && metadata['namespace'] !== undefined && metadata['namespace'] !== namespace) {
    throw new ApiError(
      'BadRequest',
      `the namespace of the object (${String(metadata['namespace'])}) does not match the namespace on the request (${namespace})`,
    )
  }
  if (name !== undefined && metadata['name'] !== undefined && metadata['name'] !== name) {
    throw new ApiError(
      'BadRequest',
      `the name of the object (${String(metadata['name'])}) does not match the name on the URL (${name})`,
    )
  }
  const place = { ...(namespace !== undefined && { namespace }), ...(name !== undefined && { name }) }
  return {
    apiVersion: apiVersionOf(kind),
    kind: kind.kind,
    ...body,
    metadata: { ...metadata, ...place } as KubeObject['metadata'],
  }
}

/** Unknown fields, by fieldValidation: refused, warned of, or nothing (Kubernetes' default is Warn). */
function unknownFields(call: Call, object: KubeObject): string[] {
  const mode = parameter(call.query, 'fieldValidation') ?? 'Warn'
  const parsed = parse(call.path.kind, object)
  if (mode === 'Ignore' || !parsed.ok) return []
  const texts = parsed.unknown.map((field) => `unknown field "${field}"`)
  if (mode !== 'Strict' || texts.length === 0) return texts
  const causes: Cause[] = parsed.unknown.map((field) => ({
    reason: 'FieldValueInvalid',
    field,
    message: 'unknown field',
  }))
  throw new ApiError(
    'BadRequest',
    `${object.kind} in version "${call.path.kind.version}" cannot be handled as a ${object.kind}: strict decoding error: ${texts.join(', ')}`,
    { causes },
  )
}

async function create(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind, namespace } = call.path
  if (kind.namespaced && namespace === undefined)
    throw new ApiError('MethodNotAllowed', 'a namespaced object is created under its namespace')
  const object = objectOf(call, call.body)
  const warnings = unknownFields(call, object)
  if (namespace !== undefined) await deps.objects.get(Namespace, { name: namespace })
  const options: WriteOptions = { dryRun: isDryRun(call.query), restoreUid: flag(call.query, 'restoreUid') }
  return { code: 201, body: await deps.objects.create(kind, object, options), warnings }
}

async function put(call: Call, deps: HandlerDeps): Promise<Answer> {
  const object = objectOf(call, call.body)
  const warnings = unknownFields(call, object)
  return { code: 200, body: await write(call, object, deps), warnings }
}

function write(call: Call, object: KubeObject, deps: HandlerDeps): Promise<KubeObject> {
  const options = { dryRun: isDryRun(call.query) }
  const { kind, subresource } = call.path
  return subresource === 'status'
    ? deps.objects.updateStatus(kind, object, options)
    : deps.objects.update(kind, object, options)
}

async function patch(call: Call, deps: HandlerDeps): Promise<Answer> {
  const change = patcherOf(call)
  for (let i = 1; ; i += 1) {
    const before = await deps.objects.get(call.path.kind, refOf(call))
    const { resourceVersion, ...metadata } = before.metadata
    // Its own version is put back only where the patch does not name one: then a stale one is a conflict, not a retry.
    const patched = objectOf(call, change({ ...before, metadata }))
    const own = patched.metadata.resourceVersion === undefined
    const object =
      own && resourceVersion !== undefined
        ? { ...patched, metadata: { ...patched.metadata, resourceVersion } }
        : patched
    const warnings = unknownFields(call, object)
    try {
      return { code: 200, body: await write(call, object, deps), warnings }
    } catch (error) {
      if (!own || i >= patchTries || !isReason(error, 'Conflict')) throw error
    }
  }
}

function patcherOf(call: Call): (target: unknown) => unknown {
  const type = call.contentType.split(';')[0]?.trim() ?? ''
  if (type === 'application/merge-patch+json') {
    if (!isRecord(call.body)) throw new ApiError('BadRequest', 'a merge patch is an object')
    return (target) => mergePatch(target, call.body)
  }
  if (type === 'application/json-patch+json') return (target) => jsonPatch(target, call.body)
  const supported = 'application/json-patch+json, application/merge-patch+json'
  throw new ApiError(
    'UnsupportedMediaType',
    `the body of the request was in an unknown format: ${type}; accepted media types include: ${supported}`,
  )
}

async function remove(call: Call, deps: HandlerDeps): Promise<Answer> {
  const options = isRecord(call.body) ? call.body : {}
  const preconditions = (isRecord(options['preconditions']) ? options['preconditions'] : {}) as {
    uid?: string
    resourceVersion?: string
  }
  const bodyDryRun = Array.isArray(options['dryRun']) && options['dryRun'].includes('All')
  const { kind } = call.path
  const object = await deps.objects.delete(kind, refOf(call), {
    ...preconditions,
    dryRun: bodyDryRun || isDryRun(call.query),
  })
  // Kubernetes answers with the object while finalizers hold it, and with a Status when it is gone.
  if (object.metadata.finalizers?.length) return { code: 200, body: object }
  const details = {
    name: object.metadata.name,
    group: kind.group,
    kind: kind.plural,
    uid: object.metadata.uid,
  }
  return { code: 200, body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details } }
}

async function deleteCollection(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind, namespace } = call.path
  const labelSelector = parameter(call.query, 'labelSelector')
  const page = await deps.objects.list(kind, {
    ...(namespace !== undefined && { namespace }),
    ...(labelSelector && { labelSelector }),
  })
  const chosen = page.items.filter(parseFieldSelector(parameter(call.query, 'fieldSelector')))
  for (const { metadata } of chosen) {
    const ref = {
      name: metadata.name,
      ...(metadata.namespace !== undefined && { namespace: metadata.namespace }),
    }
    await deps.objects.delete(kind, ref, { dryRun: isDryRun(call.query) }).catch((error: unknown) => {
      if (!isReason(error, 'NotFound')) throw error
    })
  }
  return {
    code: 200,
    body: {
      apiVersion: apiVersionOf(kind),
      kind: `${kind.kind}List`,
      metadata: { resourceVersion: page.resourceVersion },
      items: chosen,
    },
  }
}

async function act(
  call: Call,
  action: NonNullable<(typeof actionOf)[string]>,
  deps: HandlerDeps,
): Promise<Answer> {
  for (let i = 1; ; i += 1) {
    const vm = await deps.objects.get(VirtualMachine, refOf(call))
    const decision = requestAction(vm, action, { id: deps.newId(), at: rfc3339(deps.clock.now()) })
    if ('refuse' in decision) {
      throw new ApiError(
        'Conflict',
        `can't ${call.path.subresource} ${vm.metadata.name}: ${decision.refuse}`,
        { group: call.path.kind.group, kind: call.path.kind.plural, name: vm.metadata.name },
      )
    }
    try {
      if ('spec' in decision) {
        return {
          code: 202,
          body: await deps.objects.update(VirtualMachine, { ...vm, spec: { ...vm.spec, ...decision.spec } }),
        }
      }
      const blank = { restarts: 0, disks: [], networks: [], conditions: [] }
      const status = { ...(vm.status ?? blank), request: decision.request }
      return { code: 202, body: await deps.objects.updateStatus(VirtualMachine, { ...vm, status }) }
    } catch (error) {
      if (i >= patchTries || !isReason(error, 'Conflict')) throw error
    }
  }
}
