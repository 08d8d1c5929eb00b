import { isRecord } from '../resources/prune.ts'
import { ApiError, type Cause, type ErrorDetails, httpCodes, type Reason } from './errors.ts'

const isKnown = (reason: unknown): reason is Reason =>
  typeof reason === 'string' && Object.hasOwn(httpCodes, reason)

/** What an answer without a reason of ours means, by its HTTP code. */
function reasonOf(code: number, message = ''): Reason {
  // Of etcd, which Kubernetes passes on as it came.
  if (code === 500 && message.includes('etcdserver: request is too large')) return 'RequestEntityTooLarge'
  const [found] = Object.entries(httpCodes).find(([, value]) => value === code) ?? []
  // 409 alone does not say which of the two it is; only that of the two which a reader may try again is harmless.
  if (code === 409) return 'Conflict'
  if (code === 410) return 'Expired'
  if (found !== undefined) return found as Reason
  if (code === 502) return 'ServiceUnavailable'
  return code >= 500 ? 'InternalError' : 'BadRequest'
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)

function causesOf(value: unknown): readonly Cause[] | undefined {
  if (!Array.isArray(value)) return undefined
  return value.filter(isRecord).map((cause) => ({
    reason: text(cause['reason']) ?? 'FieldValueInvalid',
    field: text(cause['field']) ?? '',
    message: text(cause['message']) ?? '',
  }))
}

function detailsOf(value: unknown): ErrorDetails {
  if (!isRecord(value)) return {}
  const { group, kind, name, retryAfterSeconds } = value
  const causes = causesOf(value['causes'])
  return {
    ...(typeof group === 'string' && { group }),
    ...(typeof kind === 'string' && { kind }),
    ...(typeof name === 'string' && { name }),
    ...(causes && { causes }),
    ...(typeof retryAfterSeconds === 'number' && { retryAfterSeconds }),
  }
}

/** The longest part of an answer that is no Status which an error repeats. */
const shownChars = 300

/**
 * The error that a Kubernetes Status (meta/v1), or whatever else came with an HTTP code of 400 or more, stands for.
 * @param retryAfter of the header, in seconds where it is a number
 */
export function errorOfStatus(code: number, body: unknown, retryAfter?: string): ApiError {
  const seconds = retryAfter !== undefined && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : undefined
  const wait = seconds === undefined ? {} : { retryAfterSeconds: seconds }
  if (isRecord(body) && body['kind'] === 'Status') {
    const own = typeof body['code'] === 'number' ? body['code'] : code
    const message = text(body['message']) ?? `the API server answered ${own}`
    const reason = isKnown(body['reason']) ? body['reason'] : reasonOf(own, message)
    return new ApiError(reason, message, { ...wait, ...detailsOf(body['details']) })
  }
  const said = (typeof body === 'string' ? body : (JSON.stringify(body) ?? '')).trim().slice(0, shownChars)
  // A path that no API serves, not an object that is not there: Kubernetes answers plain text.
  const hint =
    code === 404 ? { hint: 'is that kind installed there? apply crds/, and check the server address' } : {}
  return new ApiError(
    reasonOf(code),
    `the API server answered ${code}${said === '' ? '' : `: ${said}`}`,
    wait,
    hint,
  )
}
