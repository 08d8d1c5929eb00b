import { rfc3339 } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { canonicalQuery, queryPairs } from './canonical-query.ts'
import { emptySha256 } from './hash.ts'
import { refuse } from './refusal.ts'
import { type Credentials, presign } from './sign.ts'
import { type Verdict, type VerifyOptions, verifyRequest } from './verify.ts'

const prefix = 'plasmavmc-v1.'

/**
 * What a token signs: a path no API has. So no presigned URL of a real resource, given away for that one resource,
 * can be turned into a token, which opens everything.
 */
const tokenPath = '/plasmavmc-v1/token'

const longestToken = 4096

/** The signed header that binds a token to a cluster. Its value is not in the token: each server puts its own there. */
const clusterHeader = 'x-plasmavmc-cluster'

export interface TokenRequest {
  /** `host` or `host:port` of the server; part of what is signed. */
  readonly host: string
  readonly credentials: Credentials
  /** Wall milliseconds. */
  readonly now: number
  readonly region?: string
  readonly service?: string
  /** 900 unless told; at most 604800. */
  readonly expiresSeconds?: number
  /** The one cluster where it is good; wherever its key is known unless told. */
  readonly clusterId?: string
}

export interface Token {
  readonly token: string
  /** Wall milliseconds. */
  readonly expiresAt: number
}

/** A bearer token: a presigned URL in base64url. Made without asking the server. @throws PlasmaError `BadExpiry` */
export function makeToken(request: TokenRequest): Token {
  const { host, credentials, now, region = 'local', service = 'plasmavmc', expiresSeconds = 900 } = request
  const { clusterId } = request
  const url = presign({
    ...(clusterId !== undefined && { headers: { [clusterHeader]: clusterId } }),
    url: new URL(`https://${host}${tokenPath}`),
    credentials,
    now,
    region,
    service,
    expiresSeconds,
  })
  const token = prefix + Buffer.from(url.href).toString('base64url')
  return { token, expiresAt: Math.floor(now / 1000) * 1000 + expiresSeconds * 1000 }
}

/** Verifies a token made by {@link makeToken}; only the exact text that it makes is taken. */
export function verifyToken(token: string, options: VerifyOptions, address?: string): Verdict {
  const malformed = refuse('InvalidToken', `a bearer token must begin with ${prefix} and be whole`)
  if (!token.startsWith(prefix) || token.length > longestToken) return malformed
  const encoded = token.slice(prefix.length)
  const url = Buffer.from(encoded, 'base64url').toString('latin1')
  if (Buffer.from(url, 'latin1').toString('base64url') !== encoded) return malformed
  const [, host, path, query] = /^https:\/\/([^/?#\s]+)(\/[^?#\s]*)\?([^#\s]*)$/.exec(url) ?? []
  if (host === undefined || query === undefined || path !== tokenPath) return malformed
  const pairs = queryPairs(query)
  if (pairs.length !== 6 || canonicalQuery(pairs) !== query) return malformed
  const request = {
    method: 'GET',
    rawUrl: `${tokenPath}?${query}`,
    headers: { host, ...(options.clusterId !== undefined && { [clusterHeader]: options.clusterId }) },
    bodySha256: emptySha256,
    ...(address !== undefined && { address }),
  }
  const verdict = verifyRequest(request, options)
  if (verdict.ok) return verdict
  if (verdict.code === 'RequestExpired')
    return refuse('ExpiredToken', 'the bearer token has expired: get another one')
  const isBound = query.includes(clusterHeader)
  const doubtful = verdict.code === 'SignatureDoesNotMatch' || verdict.code === 'IncompleteSignature'
  return isBound && doubtful ? { ...verdict, message: `${verdict.message}${elsewhere}` } : verdict
}

const elsewhere =
  '; the token is bound to a cluster, which may be another one than this: write the kubeconfig anew (plasmavmc kubeconfig)'

const execVersions = ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1']

/**
 * The ExecCredential that kubectl reads from a credential plugin, in the version that KUBERNETES_EXEC_INFO asks for.
 * `expiresAt` in wall milliseconds; kubectl asks again after it. @throws PlasmaError `ExecVersion`
 */
export function execCredential(token: string, expiresAt: number, execInfo?: string): object {
  return {
    kind: 'ExecCredential',
    apiVersion: execVersion(execInfo),
    spec: {},
    status: { expirationTimestamp: rfc3339(expiresAt), token },
  }
}

function execVersion(execInfo: string | undefined): string {
  if (!execInfo) return execVersions[0]!
  let asked: unknown
  try {
    asked = (JSON.parse(execInfo) as { apiVersion?: unknown } | null)?.apiVersion
  } catch {
    asked = 'no JSON'
  }
  if (typeof asked === 'string' && execVersions.includes(asked)) return asked
  throw new PlasmaError('ExecVersion', `KUBERNETES_EXEC_INFO asks for ${String(asked)}`, {
    hint: `set apiVersion of the kubeconfig's exec entry to ${execVersions[0]}`,
  })
}
