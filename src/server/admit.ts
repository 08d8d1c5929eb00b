import type { IncomingMessage } from 'node:http'
import { auditRecord } from '../auth/audit.ts'
import type { Target, Verb } from '../auth/authorize.ts'
import { emptySha256, sha256Hex } from '../auth/hash.ts'
import { fromRawHeaders } from '../auth/header-pairs.ts'
import type { Identity } from '../auth/identity.ts'
import { ApiError } from '../store/errors.ts'
import type { ServerDeps } from './deps.ts'
import { parsePath, type ResourcePath, targetOf, verbOf } from './path.ts'
import { flag, refuseAmbiguous } from './query.ts'
import { refused } from './refused.ts'
import type { RequestTarget } from './target.ts'

/** A request whose sender is known and may do what it asks for. */
export interface Admitted {
  readonly identity: Identity
  readonly verb: Verb
  readonly target: Target
  /** Absent where the path is no resource. */
  readonly path: ResourcePath | undefined
}

/** Who it is and whether they may. `body` is as received. @throws ApiError Unauthorized, Forbidden, BadRequest */
export function admit(
  request: IncomingMessage,
  body: Buffer,
  url: RequestTarget,
  deps: ServerDeps,
): Admitted {
  const { method = 'GET' } = request
  const verdict = deps.authenticate({
    method,
    rawUrl: request.url ?? '/',
    headers: fromRawHeaders(request.rawHeaders),
    bodySha256: body.length === 0 ? emptySha256 : sha256Hex(body),
    address: request.socket.remoteAddress ?? '',
  })
  if (!verdict.ok) throw refused(verdict)
  refuseAmbiguous(url.searchParams)
  const path = parsePath(url.pathname, deps.kinds)
  const verb = path ? verbOf(method, path, flag(url.searchParams, 'watch')) : (method.toLowerCase() as Verb)
  const target = path ? targetOf(path) : { path: url.pathname }
  const { identity } = verdict
  if (deps.authorize(identity, verb, target)) return { identity, verb, target, path }
  throw forbidden(identity, verb, path, url.pathname)
}

/** @returns what is said to an identity that may not do it */
export function forbidden(
  identity: Identity,
  verb: Verb,
  path: ResourcePath | undefined,
  pathname: string,
): ApiError {
  const who = `User "${identity.name}" cannot ${verb}`
  if (!path) return new ApiError('Forbidden', `forbidden: ${who} path "${pathname}"`)
  const { kind, namespace, name, subresource } = path
  const { group, plural } = kind
  const resource = subresource === undefined ? plural : `${plural}/${subresource}`
  const what = `${plural}${group === '' ? '' : `.${group}`}${name === undefined ? '' : ` "${name}"`}`
  const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`
  return new ApiError(
    'Forbidden',
    `${what} is forbidden: ${who} resource "${resource}" in API group "${group}" ${scope}`,
    { group, kind: plural, ...(name !== undefined && { name }) },
  )
}

export interface Outcome {
  readonly id: string
  /** Wall milliseconds. */
  readonly receivedAt: number
  readonly admitted: Admitted | undefined
  readonly code: number
  readonly reason?: string
}

/** Records what changes something, what opens a console and what was refused; other reads are not recorded. */
export function recordAudit(deps: ServerDeps, request: IncomingMessage, outcome: Outcome): void {
  const { admitted, ...rest } = outcome
  const { method = 'GET', url = '/', headers, socket } = request
  const denied = rest.code === 401 || rest.code === 403
  const attached = ['console', 'vnc'].includes(admitted?.path?.subresource ?? '')
  if (method === 'GET' && !denied && !attached) return
  const userAgent = headers['user-agent']
  deps.audit(
    auditRecord({
      ...rest,
      answeredAt: deps.clock.now(),
      verb: admitted?.verb ?? (method.toLowerCase() as Verb),
      method,
      rawUrl: url,
      target: admitted?.target ?? { path: url.split('?')[0] ?? '/' },
      ...(admitted && { identity: admitted.identity }),
      sourceIp: socket.remoteAddress ?? '',
      ...(userAgent !== undefined && { userAgent }),
    }),
  )
}
