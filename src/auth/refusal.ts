/** AWS's names of what can be wrong with a signature; `SignatureReplayed` is ours, AWS has none for it. */
export type RefusalCode =
  | 'AuthorizationQueryParametersError'
  | 'ExpiredToken'
  | 'IncompleteSignature'
  | 'InvalidClientTokenId'
  | 'InvalidToken'
  | 'InvalidURI'
  | 'MissingAuthenticationToken'
  | 'RequestExpired'
  | 'RequestTimeTooSkewed'
  | 'SignatureDoesNotMatch'
  | 'SignatureReplayed'
  | 'Throttling'
  | 'XAmzContentSHA256Mismatch'

/** Why a request was not let in; nothing in it tells a known key from an unknown one. */
export interface Refusal {
  readonly ok: false
  readonly code: RefusalCode
  readonly message: string
  /** With `Throttling`: whole seconds after which another attempt makes sense. */
  readonly retryAfterSeconds?: number
}

/** A refusal as data. */
export function refuse(code: RefusalCode, message: string): Refusal {
  return { ok: false, code, message }
}

/** A refusal for now. @param waitMs how long, milliseconds */
export function throttle(waitMs: number, message: string): Refusal {
  const retryAfterSeconds = Math.max(1, Math.ceil(waitMs / 1000))
  return { ok: false, code: 'Throttling', message, retryAfterSeconds }
}
