import { timingSafeEqual } from 'node:crypto'
import { parseAmzDate } from './amz-date.ts'
import type { FailedAttempts } from './attempts.ts'
import { canonicalQuery, type QueryPair, queryPairs } from './canonical-query.ts'
import { type CanonicalParts, canonicalRequest, type PathEncoding, splitUrl } from './canonical-request.ts'
import { emptySha256 } from './hash.ts'
import { type HeaderPair, type HeaderSource, headerPairs, valuesOf } from './header-pairs.ts'
import type { Identity, SecretOf } from './identity.ts'
import { type Claim, parseAuthorization } from './parse-authorization.ts'
import { isPresigned, parsePresigned } from './parse-presigned.ts'
import { type Refusal, refuse, throttle } from './refusal.ts'
import type { Replays } from './replays.ts'
import { signatureBytes } from './signature.ts'

export interface SignedRequest {
  readonly method: string
  /** The request target as received, path and query. */
  readonly rawUrl: string
  readonly headers: HeaderSource
  /** Lower-case hexadecimal SHA-256 of the body as received. */
  readonly bodySha256: string
  /** The address it came from; failed attempts are counted by it. */
  readonly address?: string
}

export interface VerifyOptions {
  readonly secretOf: SecretOf
  /** Wall milliseconds. */
  readonly now: number
  readonly region: string
  readonly service: string
  /** How far a signer's clock may be off, either way. Milliseconds; 5 minutes unless told. */
  readonly maxSkewMs?: number
  /** `twice` unless told, as the specification has it for every service but S3. */
  readonly pathEncoding?: PathEncoding
  /** Slows down whoever guesses; without it nobody is. */
  readonly attempts?: FailedAttempts
  /** Remembers what must not come twice; without it everything may. */
  readonly replays?: Replays
  /** The cluster this is: a bearer token that is bound to one is taken there alone, and nowhere without it. */
  readonly clusterId?: string
}

export type Verdict = { readonly ok: true; readonly identity: Identity } | Refusal

const defaultSkewMs = 300_000

/** Stands in where an access key is unknown, so that refusing takes the same work as with a wrong secret. */
const nobodysSecret = 'nobody0000000000000000000000000000000000'

/**
 * Lets in whoever signed with a known key, by Authorization header or presigned URL. With `replays`, a header signature
 * that may change something is good once; without them replays within the skew are not told apart.
 */
export function verifyRequest(request: SignedRequest, options: VerifyOptions): Verdict {
  const headers = headerPairs(request.headers)
  const pairs = queryPairs(splitUrl(request.rawUrl).query)
  const problem = formProblem(request, headers, pairs)
  if (problem) return problem
  const authorization = valuesOf(headers, 'authorization')
  const presigned = isPresigned(pairs)
  if (authorization.length + Number(presigned) > 1) {
    return refuse('IncompleteSignature', 'a request must be signed once: by one header or in its URL')
  }
  const pathEncoding = options.pathEncoding ?? 'twice'
  const parts = { ...request, headers, pairs, pathEncoding }
  if (presigned) return verifyPresigned(parts, options)
  const header = authorization[0]
  if (header === undefined) {
    return refuse('MissingAuthenticationToken', 'the request is not signed (AWS Signature Version 4)')
  }
  return verifyHeader(header, parts, options)
}

/** What no signature can make good. */
function formProblem(
  { rawUrl }: SignedRequest,
  headers: readonly HeaderPair[],
  pairs: readonly QueryPair[],
): Refusal | undefined {
  if (!/^\/[\x21-\x7e]*$/.test(rawUrl)) {
    return refuse('InvalidURI', 'the request target must be a path of printable ASCII characters')
  }
  // A value that reaches into the next line of what is signed could be read in two ways; folds are one space.
  if (headers.some(([, value]) => /\r(?!\n)|\n(?![ \t])|\0/.test(value))) {
    return refuse('IncompleteSignature', 'a header has a line break or a NUL in it')
  }
  // AWS's answer to a token it never gave; no key here has one, so all are refused alike, whoever's key it is.
  const isToken = ([name]: readonly [string, string]) => name.toLowerCase() === 'x-amz-security-token'
  if (!headers.some(isToken) && !pairs.some(isToken)) return undefined
  return refuse(
    'InvalidClientTokenId',
    'the security token included in the request is invalid: keys here have none; sign without one',
  )
}

type Parts = Omit<CanonicalParts, 'signedHeaders'> & Pick<SignedRequest, 'address'>

function verifyHeader(header: string, request: Parts, options: VerifyOptions): Verdict {
  const claim = parseAuthorization(header)
  if (!claim.ok) return claim
  const date = dateOf(request.headers, claim.signedHeaders)
  if (typeof date !== 'string') return date
  const signedAt = parseAmzDate(date)!
  const skew = options.maxSkewMs ?? defaultSkewMs
  if (Math.abs(options.now - signedAt) > skew) {
    return refuse(
      'RequestTimeTooSkewed',
      `signed at ${date}, which is more than ${skew / 1000} s off the server's time`,
    )
  }
  const parts = { ...request, signedHeaders: claim.signedHeaders }
  const verdict = problemWith(claim, date, parts, options) ?? judge(claim, date, parts, options)
  return verdict.ok && !safeMethods.has(request.method)
    ? (replayed(claim, signedAt, options) ?? verdict)
    : verdict
}

/** RFC 9110 section 9.2.1: they ask for no change, so that doing them twice does no harm. */
const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** @param signedAt wall milliseconds */
function replayed(
  { accessKeyId, signature }: Claim,
  signedAt: number,
  options: VerifyOptions,
): Refusal | undefined {
  const { replays, now, maxSkewMs = defaultSkewMs } = options
  const sight = replays?.see({ accessKeyId, signature, signedAt }, now, maxSkewMs) ?? 'new'
  if (sight === 'new') return undefined
  if (sight === 'full')
    return throttle(60_000, 'more signatures came than can be remembered: try again later')
  const why =
    sight === 'seen' ? 'this signature came before' : 'this signature is from before a change of the clock'
  return refuse(
    'SignatureReplayed',
    `${why}, and a request that may change something is good once: sign it again. Equal requests of one second have one signature unless a header of your choice, signed, tells them apart`,
  )
}

function verifyPresigned(request: Parts, options: VerifyOptions): Verdict {
  const claim = parsePresigned(request.pairs ?? [])
  if (!claim.ok) return claim
  if (claim.signedAt - options.now > (options.maxSkewMs ?? defaultSkewMs)) {
    return refuse('RequestTimeTooSkewed', `signed at ${claim.date}, which is in the server's future`)
  }
  if (options.now > claim.expiresAt) return refuse('RequestExpired', 'the presigned URL has expired')
  const parts = { ...request, signedHeaders: claim.signedHeaders }
  return problemWith(claim, claim.date, parts, options) ?? judge(claim, claim.date, parts, options)
}

/** The signed time of a header signature in X-Amz-Date's form, from x-amz-date or else from date. */
function dateOf(headers: readonly HeaderPair[], signedHeaders: readonly string[]): string | Refusal {
  const own = valuesOf(headers, 'x-amz-date')
  const name = own.length > 0 ? 'x-amz-date' : 'date'
  const values = own.length > 0 ? own : valuesOf(headers, 'date')
  if (values.length !== 1 || !signedHeaders.includes(name)) {
    return refuse('IncompleteSignature', 'x-amz-date, or else date, must be sent once and be signed')
  }
  const text = values[0]!.trim()
  const date = name === 'date' ? fromHttpDate(text) : text
  if (date !== undefined && parseAmzDate(date) !== undefined) return date
  return refuse('IncompleteSignature', `${name} must be a time such as 20150830T123600Z`)
}

/** IMF-fixdate (RFC 9110 section 5.6.7) as X-Amz-Date's form; that form itself stays. */
function fromHttpDate(text: string): string | undefined {
  if (!text.endsWith(' GMT')) return text
  const ms = Date.parse(text)
  if (Number.isNaN(ms) || new Date(ms).toUTCString() !== text) return undefined
  return new Date(ms).toISOString().replace(/[-:]|\.\d{3}/g, '')
}

/** What is wrong with a claim whoever made it: scope, signed headers, body. */
function problemWith(
  claim: Claim,
  date: string,
  parts: CanonicalParts,
  options: VerifyOptions,
): Refusal | undefined {
  const { scope } = claim
  if (
    scope.region !== options.region ||
    scope.service !== options.service ||
    scope.date !== date.slice(0, 8)
  ) {
    const wanted = `${date.slice(0, 8)}/${options.region}/${options.service}`
    return refuse('SignatureDoesNotMatch', `the credential must be scoped to ${wanted}/aws4_request`)
  }
  return headerProblem(parts) ?? bodyProblem(parts)
}

function headerProblem({ headers, signedHeaders, bodySha256 }: CanonicalParts): Refusal | undefined {
  if (!signedHeaders.includes('host') || valuesOf(headers, 'host').length !== 1) {
    return refuse('IncompleteSignature', 'host must be sent once and be signed')
  }
  const absent = signedHeaders.find((name) => valuesOf(headers, name).length === 0)
  if (absent !== undefined) return refuse('IncompleteSignature', `${absent} is signed but was not received`)
  // What a body means hangs on its type: two kinds of patch are one JSON text.
  // For whom it is done is no less than what is done.
  const needed = (name: string) =>
    /^(x-amz|impersonate)-/.test(name) || (name === 'content-type' && bodySha256 !== emptySha256)
  const left = headers.find(([name]) => needed(name) && !signedHeaders.includes(name))
  const why = 'must be signed: every x-amz- and impersonate- header must, and the content-type of a body'
  return left && refuse('IncompleteSignature', `${left[0]} ${why}`)
}

/** The body is always part of what is signed: the hash is ours, of what was received; a header can only repeat it. */
function bodyProblem({ headers, bodySha256 }: CanonicalParts): Refusal | undefined {
  const wrong = valuesOf(headers, 'x-amz-content-sha256').find((value) => value.trim() !== bodySha256)
  if (wrong === undefined) return undefined
  const message = /^(UNSIGNED-PAYLOAD|STREAMING-)/.test(wrong)
    ? 'the body must be signed whole: unsigned and streaming payloads are refused'
    : 'x-amz-content-sha256 is not the SHA-256 of the body received'
  return refuse('XAmzContentSHA256Mismatch', message)
}

type Judged = CanonicalParts & Pick<SignedRequest, 'address'>

function judge(claim: Claim, date: string, parts: Judged, options: VerifyOptions): Verdict {
  const { attempts, now } = options
  const { address = '' } = parts
  const waitMs = attempts?.waitMs(address, claim.accessKeyId, now) ?? 0
  if (waitMs > 0) {
    return throttle(waitMs, `too many bad signatures with the key ${claim.accessKeyId} from this address`)
  }
  const key = options.secretOf(claim.accessKeyId)
  // An unknown key costs the same work as a wrong secret.
  const wanted = signatureBytes(key?.secret ?? nobodysSecret, claim.scope, date, canonicalRequest(parts))
  const matches = timingSafeEqual(wanted, Buffer.from(claim.signature, 'hex'))
  if (key === undefined || !matches) {
    attempts?.failed(address, claim.accessKeyId, now)
    return refuse(
      'SignatureDoesNotMatch',
      `the access key is unknown, or the signature is not its${hint(parts)}`,
    )
  }
  if (key.disabled) return refuse('InvalidClientTokenId', 'the access key is disabled')
  if (key.expiresAt !== undefined && options.now >= key.expiresAt)
    return refuse('ExpiredToken', 'the access key has expired')
  return { ok: true, identity: key.identity }
}

/** What to do where a signer may have signed a query as it was typed, as curl before 8.3 does. */
function hint({ rawUrl, pairs = [] }: CanonicalParts): string {
  const { query } = splitUrl(rawUrl)
  if (query === '' || canonicalQuery(pairs) === query) return ''
  return '; some signers (curl before 8.3) sign a query as typed: write its parameters sorted, as name=value, with %20 for a space and everything but letters, digits and -._~ encoded'
}
