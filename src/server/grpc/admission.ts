import { auditRecord } from '../../auth/audit.ts'
import type { Target, Verb } from '../../auth/authorize.ts'
import { emptySha256 } from '../../auth/hash.ts'
import type { HeaderPair } from '../../auth/header-pairs.ts'
import type { Identity } from '../../auth/identity.ts'
import type { ResourceDefinition } from '../../resources/define.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { ApiError } from '../../store/errors.ts'
import { forbidden, impersonationRefusal, wantedIdentity } from '../admit.ts'
import type { ServerDeps } from '../deps.ts'
import { type ResourcePath, targetOf, verbOf } from '../path.ts'
import { refused } from '../refused.ts'
import { spendAs } from '../seating.ts'
import { statusOf } from '../status.ts'

/** Who calls what from where. */
export interface Caller {
  /** Of this call, in the audit log. */
  readonly id: string
  /** Wall milliseconds. */
  readonly receivedAt: number
  /** `/package.Service/Method`. */
  readonly path: string
  readonly sourceIp: string
  readonly userAgent?: string
  /** For whom it is done: who sent it, or whom they want to be. Absent until it has proved itself. */
  readonly identity?: Identity
  /** Who sent it, where they want to be somebody else. */
  readonly impersonator?: Identity
}

/** What a call was about, as far as it is known. */
export interface Asked {
  readonly verb: Verb
  readonly target: Target
}

/**
 * Who a call comes from, by the values of its metadata `authorization`. A bearer token it must be: gRPC has no request
 * whose bytes a client could sign. @throws ApiError Unauthorized, TooManyRequests
 */
export function authenticateCall(
  authorization: readonly string[],
  {
    path,
    authority,
    address,
  }: { readonly path: string; readonly authority: string; readonly address: string },
  deps: Pick<ServerDeps, 'authenticate'>,
): Identity {
  const [token] = authorization
  if (token === undefined || authorization.length > 1 || !/^bearer +\S+$/i.test(token)) {
    const how = 'such as grpcurl -H "authorization: Bearer TOKEN", with a token of plasmavmc token'
    throw new ApiError(
      'Unauthorized',
      `MissingAuthenticationToken: the metadata authorization must be one bearer token, ${how}`,
    )
  }
  const headers = { host: authority, authorization: token }
  const request = { method: 'POST', rawUrl: path, headers, bodySha256: emptySha256, address }
  const verdict = deps.authenticate(request)
  if (!verdict.ok) throw refused(verdict)
  return verdict.identity
}

/**
 * For whom a call of that sender is done, by the metadata `impersonate-user` and `impersonate-group`, which mean what those
 * headers do on the REST API. What is not known of them is refused: to be ignored it would have to mean nothing.
 * @param metadata names in lower case
 * @throws ApiError BadRequest
 */
export function actingAs(
  sender: Identity,
  metadata: readonly HeaderPair[],
): Required<Pick<Caller, 'identity'>> & Pick<Caller, 'impersonator'> {
  const identity = wantedIdentity(metadata)
  return identity ? { identity, impersonator: sender } : { identity: sender }
}

/** Whether a caller may be whom they want to be; to be refused costs what a call does. @throws ApiError Forbidden, TooManyRequests */
export function authorizeImpersonation(
  { identity, impersonator }: Pick<Caller, 'identity' | 'impersonator'>,
  deps: Pick<ServerDeps, 'authorize' | 'fair'>,
): void {
  const error = identity && impersonator && impersonationRefusal(impersonator, identity, deps)
  if (!error) return
  if (deps.fair) spendAs(impersonator, deps.fair)
  throw error
}

const kind: ResourceDefinition = VirtualMachine

/** A machine, or all of a namespace or of every one, as the REST API's paths name them. */
export function vmPath(place: Omit<ResourcePath, 'kind'>): ResourcePath {
  return { kind, ...place }
}

/** What the same request would ask for on the REST API, so that one grant is good for both. */
export function askedFor(method: 'GET' | 'POST' | 'DELETE', path: ResourcePath, watch = false): Asked {
  return { verb: verbOf(method, path, watch), target: targetOf(path) }
}

/** Whether a caller may do it. @throws ApiError Forbidden, which says `shown` in place of the path where it is given */
export function authorizeCall(
  identity: Identity,
  { verb, target }: Asked,
  path: ResourcePath,
  deps: Pick<ServerDeps, 'authorize'>,
  shown: ResourcePath = path,
): void {
  if (!deps.authorize(identity, verb, target)) throw forbidden(identity, verb, targetOf(shown))
}

const reads: ReadonlySet<Verb> = new Set(['get', 'list', 'watch'])

/** Records what changes something and what was refused, as the REST API does. */
export function auditCall(
  deps: Pick<ServerDeps, 'audit' | 'clock'>,
  caller: Caller,
  asked: Asked | undefined,
  outcome: { readonly code: number } | { readonly error: unknown },
): void {
  const { code, body } = 'error' in outcome ? statusOf(outcome.error) : { ...outcome, body: undefined }
  const refused = code === 401 || code === 403
  if (!refused && (asked === undefined || reads.has(asked.verb))) return
  const { path, ...rest } = caller
  deps.audit(
    auditRecord({
      ...rest,
      answeredAt: deps.clock.now(),
      ...(asked ?? { verb: 'post', target: { path } }),
      ...{ method: 'POST', rawUrl: path, code },
      ...(body && { reason: String(body['reason']) }),
    }),
  )
}
