/** AWS's names of what can be wrong with a signature. */
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
  | 'XAmzContentSHA256Mismatch'

/** Why a request was not let in; nothing in it tells a known key from an unknown one. */
export interface Refusal {
  readonly ok: false
  readonly code: RefusalCode
  readonly message: string
}

/** A refusal as data. */
export function refuse(code: RefusalCode, message: string): Refusal {
  return { ok: false, code, message }
}
