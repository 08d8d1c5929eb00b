import { parseAmzDate } from './amz-date.ts'
import type { QueryPair } from './canonical-query.ts'
import { type Claim, parseClaim } from './parse-authorization.ts'
import { type Refusal, refuse } from './refusal.ts'
import { algorithm, maxExpiresSeconds } from './scope.ts'

/** The claim of a presigned URL. */
export interface PresignedClaim extends Claim {
  /** X-Amz-Date as sent. */
  readonly date: string
  /** The same in wall milliseconds. */
  readonly signedAt: number
  /** Wall milliseconds of the last moment it is good. */
  readonly expiresAt: number
}

const code = 'AuthorizationQueryParametersError'
const names = ['Algorithm', 'Credential', 'Date', 'Expires', 'SignedHeaders', 'Signature'] as const

/** Whether a query claims to carry a signature. */
export function isPresigned(pairs: readonly QueryPair[]): boolean {
  return pairs.some(([name]) => name === 'X-Amz-Signature' || name === 'X-Amz-Algorithm')
}

/** Parses the X-Amz-… parameters of a presigned URL; each must be there exactly once. */
export function parsePresigned(pairs: readonly QueryPair[]): PresignedClaim | Refusal {
  const values: string[] = []
  for (const name of names) {
    const found = pairs.filter(([other]) => other === `X-Amz-${name}`)
    if (found.length !== 1) return refuse(code, `X-Amz-${name} must be given exactly once`)
    values.push(decodeURIComponent(safe(found[0]![1])))
  }
  const [given, credential, date, expires, signedHeaders, signature] = values as [
    string,
    string,
    string,
    string,
    string,
    string,
  ]
  if (given !== algorithm) return refuse(code, `X-Amz-Algorithm must be ${algorithm}`)
  const seconds = /^\d{1,6}$/.test(expires) ? Number(expires) : 0
  if (seconds < 1 || seconds > maxExpiresSeconds) {
    return refuse(code, `X-Amz-Expires must be from 1 to ${maxExpiresSeconds} seconds`)
  }
  const signedAt = parseAmzDate(date)
  if (signedAt === undefined) return refuse(code, 'X-Amz-Date must be a time such as 20150830T123600Z')
  const claim = parseClaim(code, credential, signedHeaders, signature)
  return claim.ok ? { ...claim, date, signedAt, expiresAt: signedAt + seconds * 1000 } : claim
}

/** Bytes that are no ASCII fit none of these parameters; kept encoded, so that they are refused, not thrown. */
function safe(encoded: string): string {
  return encoded.replace(/%(?=[89A-F])/g, '%25')
}
