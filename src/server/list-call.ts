import type { KubeObject } from '../resources/define.ts'
import { ApiError, isReason } from '../store/errors.ts'
import type { ListOptions, ObjectList } from '../store/objects.ts'
import type { Answer, Call, HandlerDeps } from './call.ts'
import { type FieldSelector, parseFieldSelector } from './field-selector.ts'
import { listBody } from './list-text.ts'
import type { ResourcePath } from './path.ts'
import { limitOf, parameter } from './query.ts'
import { isAny, refuseOlder, type VersionWish, versionWish } from './read-options.ts'
import { listHead, shownList, viewOf } from './show.ts'

/** Lists a kind, or a namespace of it. @throws ApiError */
export async function list(call: Call, deps: HandlerDeps): Promise<Answer> {
  const { kind } = call.path
  const wanted = wantedOf(call)
  const view = viewOf({ kind, form: call.form }, call.query, () => deps.clock.now())
  if (!wanted.fields && view.form === 'json' && call.syntax !== 'yaml') {
    const page = await atVersion((one) => deps.objects.listText(kind, one), wanted)
    return { code: 200, body: listBody(JSON.stringify(listHead(kind, page)), page.items) }
  }
  return { code: 200, body: shownList(view, await objectsOf(call, wanted, deps)) }
}

/** The objects of what a call lists, a page of them where it names a limit. @throws ApiError as `list` */
export function chosen(call: Call, deps: HandlerDeps): Promise<ObjectList<KubeObject>> {
  return objectsOf(call, wantedOf(call), deps)
}

/** What the query of a list says. */
interface Wanted {
  readonly fields: FieldSelector | undefined
  readonly wish: VersionWish
  readonly options: ListOptions
}

function wantedOf({ path, query }: Pick<Call, 'path' | 'query'>): Wanted {
  const fields = parseFieldSelector(parameter(query, 'fieldSelector'), path.kind)
  const wish = versionWish(query, false)
  return { fields, wish, options: optionsOf(path, query, wish, fields) }
}

async function objectsOf({ path }: Call, wanted: Wanted, deps: HandlerDeps): Promise<ObjectList<KubeObject>> {
  const page = await atVersion((one) => deps.objects.list(path.kind, one), wanted)
  return wanted.fields ? selected(page, wanted.fields) : page
}

/** What of a page the fields choose: how many others there will be is then not known. */
function selected(page: ObjectList<KubeObject>, { matches }: FieldSelector): ObjectList<KubeObject> {
  const { remainingItemCount: _, ...rest } = page
  return { ...rest, items: page.items.filter(matches) }
}

/** Names for which the store is asked; whatever else a selector says matches nothing, and is looked for the long way. */
const plainName = /^[a-z0-9][-.a-z0-9]{0,252}$/

function optionsOf(
  { kind, namespace }: ResourcePath,
  query: URLSearchParams,
  { resourceVersion, match }: VersionWish,
  fields: FieldSelector | undefined,
): ListOptions {
  const labelSelector = parameter(query, 'labelSelector')
  const limit = limitOf(query)
  const token = parameter(query, 'continue')
  const scope = {
    ...(namespace !== undefined && { namespace }),
    ...(labelSelector && { labelSelector }),
  }
  // Kubernetes takes a version with a limit, and nothing else said, for exactly that version.
  const exact = !isAny(resourceVersion) && (match === 'Exact' || (match === '' && Boolean(limit)))
  const version = exact ? { resourceVersion } : {}
  const one = fields?.name !== undefined && plainName.test(fields.name) ? fields.name : undefined
  if (one !== undefined && !token && (namespace !== undefined || !kind.namespaced))
    return { ...scope, ...version, name: one }
  return { ...scope, ...version, ...(limit !== undefined && { limit }), ...(token && { continue: token }) }
}

/** @throws ApiError Expired for a version that is no longer known, Timeout for one that has not come yet */
async function atVersion<T>(
  read: (options: ListOptions) => Promise<ObjectList<T>>,
  { options, wish: { resourceVersion } }: Wanted,
): Promise<ObjectList<T>> {
  try {
    const page = await read(options)
    if (options.continue === undefined) refuseOlder(page.resourceVersion, resourceVersion)
    return page
  } catch (error) {
    if (!isReason(error, 'Gone') || options.resourceVersion === undefined) throw error
    const { resourceVersion: _, ...now } = options
    refuseOlder((await read({ ...now, limit: 1 })).resourceVersion, resourceVersion)
    throw new ApiError('Expired', 'The resourceVersion for the provided list is too old.')
  }
}
