import type { Refusal } from '../auth/refusal.ts'
import { ApiError } from '../store/errors.ts'

/** Why nobody was let in, by AWS's name for it, as an error of Kubernetes': 401, or 429 for one who is to wait. */
export function refused({ code, message, retryAfterSeconds }: Refusal): ApiError {
  const text = `${code}: ${message}`
  return retryAfterSeconds === undefined
    ? new ApiError('Unauthorized', text)
    : new ApiError('TooManyRequests', text, { retryAfterSeconds })
}

/** The headers that an error is answered with, besides those of its body. */
export function errorHeaders({
  code,
  body,
}: {
  readonly code: number
  readonly body: Readonly<Record<string, unknown>>
}): Readonly<Record<string, string>> {
  const { retryAfterSeconds } = (body['details'] ?? {}) as { readonly retryAfterSeconds?: number }
  return {
    ...(code === 401 && { 'www-authenticate': 'AWS4-HMAC-SHA256' }),
    // kubectl and client-go wait so long and ask again; they do so for this header alone.
    ...(retryAfterSeconds !== undefined && { 'retry-after': String(retryAfterSeconds) }),
  }
}
