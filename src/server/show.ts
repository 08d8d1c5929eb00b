import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { type IncludeObject, toTable } from '../resources/table.ts'
import { ApiError } from '../store/errors.ts'
import type { ObjectList } from '../store/objects.ts'
import type { Form } from './accept.ts'
import { parameter } from './query.ts'

/** How objects are to be shown. */
export interface View {
  readonly kind: ResourceDefinition
  readonly form: Form
  readonly includeObject: IncludeObject
  /** Wall milliseconds that ages are counted to. */
  readonly now: () => number
}

/** @throws ApiError BadRequest for an unknown `includeObject` */
export function viewOf(
  { kind, form }: Pick<View, 'kind' | 'form'>,
  query: URLSearchParams,
  now: () => number,
): View {
  const wanted = parameter(query, 'includeObject') || 'Metadata'
  if (wanted !== 'None' && wanted !== 'Metadata' && wanted !== 'Object')
    throw new ApiError(
      'BadRequest',
      `includeObject: Invalid value: "${wanted.slice(0, 100)}": must be 'Metadata', 'Object', 'None', or empty`,
    )
  return { kind, form, includeObject: wanted, now }
}

/** What is shown of one object. @throws ApiError NotAcceptable where metadata of a list was asked for */
export function shownOne(view: View, object: KubeObject): unknown {
  const { kind, form, includeObject, now } = view
  const { resourceVersion = '' } = object.metadata
  if (form === 'table')
    return toTable(kind, [object], { now: now(), includeObject, metadata: { resourceVersion } })
  if (form === 'metadata') return metadataOf(object)
  refuseListForm(view)
  return object
}

/** What is shown of a list. @throws ApiError NotAcceptable where metadata of one object was asked for */
export function shownList(view: View, page: ObjectList<KubeObject>): unknown {
  const { kind, form, includeObject, now } = view
  const metadata = listMeta(page)
  if (form === 'table') return toTable(kind, page.items, { now: now(), includeObject, metadata })
  if (form === 'metadataList') {
    const items = page.items.map(metadataOf)
    return { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata, items }
  }
  refuseListAsOne(view)
  return { ...listHead(kind, page), items: page.items }
}

/** @throws ApiError NotAcceptable where the form is that of a list */
export function refuseListForm({ kind, form }: Pick<View, 'kind' | 'form'>): void {
  if (form === 'metadataList')
    throw wrongForm(
      `you requested PartialObjectMetadataList, but the requested object is not a list (${kind.kind})`,
    )
}

/** @throws ApiError NotAcceptable where the form is that of one object */
export function refuseListAsOne({ kind, form }: Pick<View, 'kind' | 'form'>): void {
  if (form === 'metadata')
    throw wrongForm(
      `you requested PartialObjectMetadata, but the requested object is a list (${kind.kind}List)`,
    )
}

/** A list without its items. */
export function listHead(kind: ResourceDefinition, page: ObjectList<unknown>) {
  return { apiVersion: apiVersionOf(kind), kind: `${kind.kind}List`, metadata: listMeta(page) }
}

/** ListMeta (meta/v1). */
function listMeta({ resourceVersion, continue: token, remainingItemCount }: ObjectList<unknown>) {
  return {
    resourceVersion,
    ...(token !== undefined && { continue: token }),
    ...(remainingItemCount !== undefined && { remainingItemCount }),
  }
}

function metadataOf({ metadata }: KubeObject) {
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata }
}

function wrongForm(why: string): ApiError {
  return new ApiError('NotAcceptable', why)
}
