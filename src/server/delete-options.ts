import { isRecord } from '../resources/prune.ts'
import { ApiError, type Cause } from '../store/errors.ts'
import type { DeleteOptions } from '../store/objects.ts'
import { invalid } from '../store/validate.ts'
import { isDryRun } from './query.ts'
import { shown } from './status.ts'

const policies = ['Background', 'Foreground', 'Orphan'] as const

/** Of the body where it has the member, else of the query. */
function said(body: Readonly<Record<string, unknown>>, query: URLSearchParams, name: string): unknown {
  return body[name] ?? query.get(name) ?? undefined
}

function truth(value: unknown, field: string): boolean | undefined {
  if (value === undefined || value === '') return undefined
  if (value === true || value === 'true' || value === '1') return true
  if (value === false || value === 'false' || value === '0') return false
  throw new ApiError('BadRequest', `${field}: must be true or false`)
}

/** @throws ApiError Invalid, as Kubernetes' validation of DeleteOptions */
function propagationOf(body: Readonly<Record<string, unknown>>, query: URLSearchParams) {
  const policy = said(body, query, 'propagationPolicy')
  const orphan = truth(said(body, query, 'orphanDependents'), 'orphanDependents')
  const causes: Cause[] = []
  const field = 'propagationPolicy'
  const known = policies.find((one) => one === policy)
  const given = policy !== undefined && policy !== ''
  const value = shown(policy).slice(0, 100)
  if (given && orphan !== undefined) {
    const why = 'orphanDependents and deletionPropagation cannot be both set'
    causes.push({ reason: 'FieldValueInvalid', field, message: `Invalid value: "${value}": ${why}` })
  } else if (given && !known) {
    const values = ['Foreground', 'Background', 'Orphan', 'nil'].map((one) => `"${one}"`).join(', ')
    const message = `Unsupported value: "${value}": supported values: ${values}`
    causes.push({ reason: 'FieldValueNotSupported', field, message })
  }
  if (causes.length > 0) throw invalid({ kind: 'DeleteOptions', group: 'meta.k8s.io' }, '', causes)
  if (orphan !== undefined) return orphan ? ('Orphan' as const) : ('Background' as const)
  return known
}

/** DeleteOptions (meta/v1) of a body and a query. @throws ApiError BadRequest, Invalid */
export function deleteOptionsOf(body: unknown = {}, query: URLSearchParams): DeleteOptions {
  if (!isRecord(body)) throw new ApiError('BadRequest', 'the body must be DeleteOptions')
  const { dryRun = [] } = body
  const preconditions = body['preconditions'] ?? {}
  if (!isRecord(preconditions)) throw new ApiError('BadRequest', 'preconditions: must be an object')
  if (!Array.isArray(dryRun) || dryRun.some((value) => value !== 'All'))
    throw new ApiError('BadRequest', 'dryRun: Unsupported value: supported values: "All"')
  const { uid, resourceVersion } = preconditions
  const propagation = propagationOf(body, query)
  return {
    ...(uid != null && { uid: shown(uid) }),
    ...(resourceVersion != null && { resourceVersion: shown(resourceVersion) }),
    ...(propagation && { propagation }),
    dryRun: dryRun.length > 0 || isDryRun(query),
  }
}
