import { rfc3339 } from '../lib/clock.ts'
import type { KubeObject } from '../resources/define.ts'
import { type FieldSet, nothing, pathText } from '../resources/merge/field-set.ts'
import { type FieldType, fieldTypeOf } from '../resources/merge/field-type.ts'
import { changesBetween, FieldError, fieldsOf } from '../resources/merge/fields.ts'
import {
  type Author,
  afterApply,
  applied,
  authorText,
  type Conflict,
  conflictText,
  writeManagers,
} from '../resources/merge/managers.ts'
import { parse, withDefaults } from '../resources/parse.ts'
import { isRecord } from '../resources/prune.ts'
import { ApiError, isReason } from '../store/errors.ts'
import { invalid } from '../store/validate.ts'
import { type Answer, type Call, type HandlerDeps, objectOf, refOf, unknownFields } from './call.ts'
import { authorOf, managersOf } from './field-manager.ts'
import { openNamespace } from './namespace-calls.ts'
import { writeTries } from './patch-call.ts'
import { flag, isDryRun } from './query.ts'

/** Where kubectl's client-side apply keeps what it applied. */
const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'
const maxAnnotationBytes = 256 * 1024

/**
 * Server-side apply (Kubernetes' KEP 555): merges what is applied into what is there, takes out what this manager no
 * longer says, and refuses to change what is another's unless it is forced. @throws ApiError
 */
export async function apply(call: Call, deps: HandlerDeps): Promise<Answer> {
  const author = authorOf(call, 'Apply')
  const config = configOf(call)
  const warnings = unknownFields(call, config)
  for (let i = 1; ; i += 1) {
    const live = await liveOf(call, deps)
    try {
      const answer = live
        ? await change(call, { live, config, author }, deps)
        : await make(call, { config, author }, deps)
      return { ...answer, warnings }
    } catch (error) {
      if (error instanceof FieldError) throw untyped(call, error)
      const changed = isReason(error, 'Conflict') || (!live && isReason(error, 'AlreadyExists'))
      const raced = changed && !(error instanceof Refusal)
      if (!raced || config.metadata.resourceVersion !== undefined || i >= writeTries) throw error
    }
  }
}

interface Change {
  readonly live: KubeObject
  readonly config: KubeObject
  readonly author: Author
}

/** The body of an apply; of a subresource only that part counts. @throws ApiError BadRequest */
function configOf(call: Call): KubeObject {
  const { subresource, kind } = call.path
  const object = objectOf(call, call.body)
  if (object.metadata.managedFields?.length)
    throw new ApiError('BadRequest', 'metadata.managedFields must be nil')
  if (!kind.hasStatus) return object
  const { status, ...rest } = object
  if (subresource === undefined) return rest
  const { name, namespace, resourceVersion, uid } = object.metadata
  const place = { name, ...(namespace !== undefined && { namespace }) }
  const metadata = {
    ...{ ...place, ...(uid !== undefined && { uid }) },
    ...(resourceVersion !== undefined && { resourceVersion }),
  }
  return { apiVersion: object.apiVersion, kind: object.kind, metadata, ...(isRecord(status) && { status }) }
}

async function liveOf(call: Call, { objects }: HandlerDeps): Promise<KubeObject | undefined> {
  try {
    return await objects.getStored(call.path.kind, refOf(call))
  } catch (error) {
    if (call.path.subresource === undefined && isReason(error, 'NotFound')) return undefined
    throw error
  }
}

async function make(
  call: Call,
  { config, author }: Omit<Change, 'live'>,
  deps: HandlerDeps,
): Promise<Answer> {
  const { kind, namespace } = call.path
  const { uid, resourceVersion } = config.metadata
  if (uid !== undefined || resourceVersion !== undefined) {
    const what = uid === undefined ? `resourceVersion ${resourceVersion}` : `uid ${uid}`
    throw new Refusal(`the provided object specified ${what}, and no existing object was found`)
  }
  const within =
    namespace === undefined
      ? {}
      : { within: await openNamespace(namespace, kind, config.metadata.name, deps) }
  const at = rfc3339(deps.clock.now())
  const { object, own } = applied({
    ...{ type: fieldTypeOf(kind), live: undefined, config, author, at },
    managers: [],
  })
  const managedFields = () => writeManagers([own])
  const body = await deps.objects.create(kind, object as KubeObject, {
    ...{ dryRun: isDryRun(call.query), managedFields },
    ...within,
  })
  return { code: 201, body }
}

async function change(call: Call, { live, config, author }: Change, deps: HandlerDeps): Promise<Answer> {
  const { kind, subresource } = call.path
  const type = fieldTypeOf(kind)
  const at = rfc3339(deps.clock.now())
  const result = applied({ type, live, config, author, at, managers: managersOf(live) })
  const parsed = parse(kind, result.object)
  if (!parsed.ok) throw invalid(kind, live.metadata.name, parsed.causes)
  const [before, next] = [withDefaults(kind, live), parsed.object]
  const { managers, conflicts } = afterApply(type, { before, next }, result)
  if (!flag(call.query, 'force')) refuseConflicts(left(conflicts, type, live))
  const options = {
    dryRun: isDryRun(call.query),
    managedFields: () => writeManagers(managers),
  }
  const { uid, resourceVersion = live.metadata.resourceVersion } = config.metadata
  const metadata = {
    ...{ ...parsed.stored.metadata, ...(resourceVersion !== undefined && { resourceVersion }) },
    ...(uid !== undefined && { uid }),
    ...noted(live, config, author, parsed.stored.metadata.annotations),
  }
  const object = { ...parsed.stored, metadata }
  const body =
    subresource === 'status'
      ? await deps.objects.updateStatus(kind, object, options)
      : await deps.objects.update(kind, object, options)
  return { code: 200, body }
}

/** kubectl's note of what it applied last follows its server-side applies, for whoever goes back to the other way. */
function noted(
  live: KubeObject,
  config: KubeObject,
  { manager, subresource }: Author,
  annotations: Readonly<Record<string, string>> = {},
) {
  const known = live.metadata.annotations?.[lastApplied] !== undefined
  if (manager !== 'kubectl' || subresource !== undefined || !known) return {}
  const { annotations: said, ...rest } = config.metadata
  const { [lastApplied]: _, ...own } = said ?? {}
  const text = JSON.stringify({ ...config, metadata: said ? { ...rest, annotations: own } : rest })
  if (Buffer.byteLength(text) > maxAnnotationBytes) return {}
  return { annotations: { ...annotations, [lastApplied]: `${text}\n` } }
}

/** The conflicts without the fields that stand as a client-side apply has left them: their applier goes over to this. */
function left(conflicts: readonly Conflict[], type: FieldType, live: KubeObject): Conflict[] {
  if (conflicts.length === 0) return []
  const own = unchangedSince(type, live)
  return conflicts
    .map(({ manager, fields }) => ({ manager, fields: fields.minus(own) }))
    .filter(({ fields }) => !fields.empty)
}

/** The fields of the last client-side apply that nobody has changed since. */
function unchangedSince(type: FieldType, live: KubeObject): FieldSet {
  try {
    const last: unknown = JSON.parse(live.metadata.annotations?.[lastApplied] ?? 'null')
    const { removed, modified } = changesBetween(type, last, live)
    return fieldsOf(type, last).minus(removed).minus(modified)
  } catch {
    return nothing
  }
}

/** A refusal for good, not for a race. */
class Refusal extends ApiError {
  constructor(message: string, causes: readonly { reason: string; field: string; message: string }[] = []) {
    super('Conflict', message, causes.length > 0 ? { causes } : {})
  }
}

/** @throws ApiError Conflict with a cause for each field */
function refuseConflicts(conflicts: readonly Conflict[]): void {
  if (conflicts.length === 0) return
  const causes = conflicts.flatMap(({ manager, fields }) =>
    [...fields.paths()].map((path) => ({
      ...{ reason: 'FieldManagerConflict', field: pathText(path) },
      message: `conflict with ${authorText(manager)}`,
    })),
  )
  throw new Refusal(conflictText(conflicts), causes)
}

function untyped({ path }: Call, { message }: FieldError): ApiError {
  const { kind, namespace, name } = path
  const what = `${namespace === undefined ? '' : `${namespace}/`}${name}; ${kind.kind}`
  return new ApiError('BadRequest', `failed to create typed patch object (${what}): ${message}`)
}
