import { ApiError, type Cause } from '../store/errors.ts'
import { invalid } from '../store/validate.ts'
import { flag, parameter } from './query.ts'

/** What ListOptions (meta/v1) say of versions. */
export interface VersionWish {
  /** Absent, or `0`: any version will do. */
  readonly resourceVersion: string
  readonly match: string
  /** Undefined where it is not said. */
  readonly sendInitialEvents: boolean | undefined
}

const supported = ['Exact', 'NotOlderThan']

function forbidden(field: string, why: string): Cause {
  return { reason: 'FieldValueForbidden', field, message: `Forbidden: ${why}` }
}

function unsupported(field: string, value: string, values: readonly string[]): Cause {
  const shown = values.map((one) => `"${one}"`).join(', ')
  const message = `Unsupported value: ${JSON.stringify(value.slice(0, 100))}: supported values: ${shown}`
  return { reason: 'FieldValueNotSupported', field, message }
}

function listCauses({ resourceVersion, match, sendInitialEvents }: VersionWish, goesOn: boolean): Cause[] {
  const field = 'resourceVersionMatch'
  const causes: Cause[] = []
  if (match !== '') {
    if (goesOn) causes.push(forbidden(field, 'resourceVersionMatch is forbidden when continue is provided'))
    if (resourceVersion === '')
      causes.push(forbidden(field, 'resourceVersionMatch is forbidden unless resourceVersion is provided'))
    if (!supported.includes(match)) causes.push(unsupported(field, match, supported))
    if (match === 'Exact' && resourceVersion === '0')
      causes.push(forbidden(field, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
  }
  if (sendInitialEvents !== undefined)
    causes.push(forbidden('sendInitialEvents', 'sendInitialEvents is forbidden for list'))
  return causes
}

function watchCauses({ match, sendInitialEvents }: VersionWish, goesOn: boolean): Cause[] {
  const field = 'resourceVersionMatch'
  const causes: Cause[] = []
  if (sendInitialEvents !== undefined && match !== 'NotOlderThan')
    causes.push(forbidden(field, 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan'))
  if (match === '') return causes
  if (sendInitialEvents === undefined)
    causes.push(
      forbidden(field, 'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided'),
    )
  if (match !== 'NotOlderThan') causes.push(unsupported(field, match, ['NotOlderThan']))
  if (goesOn) causes.push(forbidden(field, 'resourceVersionMatch is forbidden when continue is provided'))
  return causes
}

/**
 * Which version a list or a watch asks for, by the rules of Kubernetes (apimachinery's validation of ListOptions).
 * @throws ApiError Invalid for members that do not go together, BadRequest for what is no version
 */
export function versionWish(query: URLSearchParams, watch: boolean): VersionWish {
  const resourceVersion = parameter(query, 'resourceVersion') ?? ''
  const wish: VersionWish = {
    resourceVersion,
    match: parameter(query, 'resourceVersionMatch') ?? '',
    sendInitialEvents: query.has('sendInitialEvents') ? flag(query, 'sendInitialEvents') : undefined,
  }
  const goesOn = Boolean(parameter(query, 'continue'))
  const causes = watch ? watchCauses(wish, goesOn) : listCauses(wish, goesOn)
  if (causes.length > 0) throw invalid({ kind: 'ListOptions', group: 'meta.k8s.io' }, '', causes)
  checkVersion(resourceVersion)
  if (!watch && goesOn && resourceVersion !== '' && resourceVersion !== '0')
    throw new ApiError('BadRequest', 'specifying resource version is not allowed when using continue')
  return wish
}

/** @throws ApiError BadRequest for what is no version; none is fine */
export function checkVersion(resourceVersion: string): void {
  if (resourceVersion !== '' && !/^\d{1,18}$/.test(resourceVersion))
    throw new ApiError(
      'BadRequest',
      `resourceVersion: Invalid value: ${JSON.stringify(resourceVersion.slice(0, 100))}: must be a version of this server`,
    )
}

/** Whether any version will do. */
export const isAny = (resourceVersion: string): boolean => resourceVersion === '' || resourceVersion === '0'

/** Refuses what is older than a client has seen elsewhere. @throws ApiError Timeout, which clients try again after */
export function refuseOlder(current: string, wanted: string): void {
  if (isAny(wanted) || BigInt(current) >= BigInt(wanted)) return
  throw new ApiError('Timeout', `Too large resource version: ${wanted}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', field: '', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  })
}
