import { PlasmaError } from '../lib/errors.ts'
import { amzDate } from './amz-date.ts'
import { canonicalQuery, queryPairs } from './canonical-query.ts'
import { canonicalRequest } from './canonical-request.ts'
import { emptySha256, sha256Hex } from './hash.ts'
import { headerPairs } from './header-pairs.ts'
import { algorithm, maxExpiresSeconds, type Scope, scopeText } from './scope.ts'
import { signature } from './signature.ts'
import { awsUriEncode } from './uri-encode.ts'

export interface Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

interface Signing {
  readonly url: URL
  readonly credentials: Credentials
  /** Wall milliseconds. */
  readonly now: number
  readonly region: string
  readonly service: string
}

export interface SignRequest extends Signing {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | Uint8Array
}

/** Headers that proxies and clients change on the way; never signed. */
const unsigned = new Set([
  'authorization',
  'connection',
  'expect',
  'transfer-encoding',
  'upgrade',
  'user-agent',
])

/**
 * Signs a request in its Authorization header.
 * @returns the given headers, names in lower case, and `host`, `x-amz-date`, `x-amz-content-sha256`, `authorization`.
 */
export function signRequest(request: SignRequest): Record<string, string> {
  const { method, url, body, credentials, now } = request
  const date = amzDate(now)
  const scope: Scope = { date: date.slice(0, 8), region: request.region, service: request.service }
  const bodySha256 = sha256Hex(body)
  const headers: Record<string, string> = {
    host: url.host,
    ...Object.fromEntries(headerPairs(request.headers)),
    'x-amz-date': date,
    'x-amz-content-sha256': bodySha256,
  }
  const signedHeaders = Object.keys(headers)
    .filter((name) => !unsigned.has(name))
    .sort()
  const canonical = canonicalRequest({
    method,
    rawUrl: url.pathname + url.search,
    headers: headerPairs(headers),
    signedHeaders,
    bodySha256,
  })
  const credential = `${credentials.accessKeyId}/${scopeText(scope)}`
  const proof = signature(credentials.secretAccessKey, scope, date, canonical)
  headers['authorization'] =
    `${algorithm} Credential=${credential}, SignedHeaders=${signedHeaders.join(';')}, Signature=${proof}`
  return headers
}

export interface PresignRequest extends Signing {
  readonly method?: string
  /** 1 to 604800. */
  readonly expiresSeconds: number
  /** Signed besides `host`; the URL has their names alone, so whoever sends it must know them. */
  readonly headers?: Readonly<Record<string, string>>
}

/**
 * A URL that carries its own signature, for a request without a body; `host` is the one signed header unless told.
 * @throws PlasmaError `BadExpiry`
 */
export function presign(request: PresignRequest): URL {
  const { url, credentials, now, expiresSeconds } = request
  if (!Number.isInteger(expiresSeconds) || expiresSeconds < 1 || expiresSeconds > maxExpiresSeconds) {
    throw new PlasmaError('BadExpiry', `${expiresSeconds} seconds is no lifetime of a presigned URL`, {
      hint: `choose from 1 to ${maxExpiresSeconds} (seven days)`,
    })
  }
  const date = amzDate(now)
  const scope: Scope = { date: date.slice(0, 8), region: request.region, service: request.service }
  const headers = headerPairs({ ...request.headers, host: url.host })
  const signedHeaders = headers.map(([name]) => name).sort()
  const pairs = [
    ...queryPairs(url.search.slice(1)),
    ['X-Amz-Algorithm', algorithm] as const,
    ['X-Amz-Credential', awsUriEncode(`${credentials.accessKeyId}/${scopeText(scope)}`)] as const,
    ['X-Amz-Date', date] as const,
    ['X-Amz-Expires', String(expiresSeconds)] as const,
    ['X-Amz-SignedHeaders', awsUriEncode(signedHeaders.join(';'))] as const,
  ]
  const canonical = canonicalRequest({
    method: request.method ?? 'GET',
    rawUrl: `${url.pathname}?${canonicalQuery(pairs)}`,
    ...{ headers, signedHeaders, bodySha256: emptySha256 },
  })
  const proof = signature(credentials.secretAccessKey, scope, date, canonical)
  const signed = new URL(url)
  signed.search = canonicalQuery([...pairs, ['X-Amz-Signature', proof]])
  return signed
}
