import { messageOf } from '../lib/errors.ts'
import { ApiError, httpCodes, type Reason } from '../store/errors.ts'

/** A value of a client in words: an object of its making may have a toString that can't be called. */
export function shown(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
}

/** Any error as a Kubernetes Status (meta/v1). What is no ApiError is an internal error whose text stays in the log. */
export function statusOf(error: unknown): {
  readonly code: number
  readonly body: Readonly<Record<string, unknown>>
} {
  const known = error instanceof ApiError ? error : fromHttp(error)
  const reason = known.reason === 'Gone' ? 'Expired' : known.reason
  const { group, kind, name, causes, retryAfterSeconds } = known.details
  const details = {
    ...(name !== undefined && { name }),
    ...(group !== undefined && { group }),
    ...(kind !== undefined && { kind }),
    ...(causes && { causes }),
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
  }
  const message = known.hint ? `${known.message} (${known.hint})` : known.message
  return {
    code: known.status,
    body: {
      ...{ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason },
      ...(Object.keys(details).length > 0 && { details }),
      code: known.status,
    },
  }
}

/** Errors of the HTTP layer carry a status code; everything else is a bug of ours. */
function fromHttp(error: unknown): ApiError {
  const code = (error as { statusCode?: unknown } | null)?.statusCode
  const [reason] = Object.entries(httpCodes).find(([, value]) => value === code) ?? []
  if (typeof code === 'number' && code < 500)
    return new ApiError((reason ?? 'BadRequest') as Reason, messageOf(error))
  return new ApiError('InternalError', 'an internal error occurred; the log of the server has it')
}
