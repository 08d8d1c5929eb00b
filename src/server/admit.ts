import type { IncomingMessage } from 'node:http'
import { auditRecord } from '../auth/audit.ts'
import type { Target, Verb } from '../auth/authorize.ts'
import { emptySha256, sha256Hex } from '../auth/hash.ts'
import { fromRawHeaders, type HeaderPair, headerPairs } from '../auth/header-pairs.ts'
import type { Identity } from '../auth/identity.ts'
import { impersonated, impersonationTargets } from '../auth/impersonation.ts'
import { messageOf } from '../lib/errors.ts'
import { ApiError } from '../store/errors.ts'
import type { ServerDeps } from './deps.ts'
import { parsePath, type ResourcePath, targetOf, verbOf } from './path.ts'
import { flag, parameter, refuseAmbiguous } from './query.ts'
import { refused } from './refused.ts'
import type { RequestTarget } from './target.ts'

/** A request whose sender is known. */
export interface Admitted {
  /** For whom it is done: the sender, or whom they want to be. */
  readonly identity: Identity
  /** The sender where they want to be somebody else. */
  readonly impersonator?: Identity
  readonly verb: Verb
  readonly target: Target
  /** Absent where the path is no resource. */
  readonly path: ResourcePath | undefined
}

/** What was refused, by the error that said so, and whose request it was: that of who wanted to be somebody else, say. */
const refusals = new WeakMap<object, { readonly admitted: Admitted; readonly sender: Identity }>()

/** What a sender who is known was refused; undefined where an error is no such refusal. */
export function refusedTo(error: unknown): Admitted | undefined {
  return error instanceof ApiError ? refusals.get(error)?.admitted : undefined
}

/** Who was refused by that error, and pays for it: not the one whom they may not be. */
export function refusedSender(error: unknown): Identity | undefined {
  return error instanceof ApiError ? refusals.get(error)?.sender : undefined
}

/** Who it is and whether they may. `body` is as received. @throws ApiError Unauthorized, Forbidden, BadRequest */
export function admit(
  request: IncomingMessage,
  body: Buffer,
  url: RequestTarget,
  deps: ServerDeps,
): Admitted {
  const { method = 'GET' } = request
  const headers = fromRawHeaders(request.rawHeaders)
  const verdict = deps.authenticate({
    method,
    rawUrl: request.url ?? '/',
    headers,
    bodySha256: body.length === 0 ? emptySha256 : sha256Hex(body),
    address: request.socket.remoteAddress ?? '',
  })
  if (!verdict.ok) throw refused(verdict)
  refuseAmbiguous(url.searchParams)
  const path = parsePath(url.pathname, deps.kinds)
  const verb = path ? verbOf(method, path, flag(url.searchParams, 'watch')) : (method.toLowerCase() as Verb)
  const target = path ? namedTarget(path, verb, url) : { path: url.pathname }
  const about = { verb, target, path }
  const wanted = wantedIdentity(headerPairs(headers))
  if (!wanted) return allow({ ...about, identity: verdict.identity }, deps)
  return allow({ ...about, identity: wanted, impersonator: verdict.identity }, deps)
}

/** @throws ApiError Forbidden, which {@link refusedTo} knows */
function allow(admitted: Admitted, deps: ServerDeps): Admitted {
  const error = refusalOf(admitted, deps)
  if (!error) return admitted
  const { identity, impersonator = identity } = admitted
  const impostor = impersonator !== identity && impersonationRefusal(impersonator, identity, deps)
  refusals.set(error, { admitted, sender: impostor ? impersonator : identity })
  throw error
}

function refusalOf(
  { identity, impersonator, verb, target }: Admitted,
  deps: ServerDeps,
): ApiError | undefined {
  const impostor = impersonator && impersonationRefusal(impersonator, identity, deps)
  if (impostor) return impostor
  return deps.authorize(identity, verb, target) ? undefined : forbidden(identity, verb, target)
}

/** Why somebody may not be that identity; undefined where they may. */
export function impersonationRefusal(
  impersonator: Identity,
  identity: Identity,
  deps: Pick<ServerDeps, 'authorize'>,
): ApiError | undefined {
  const may = (one: Target) => deps.authorize(impersonator, 'impersonate', one)
  const stranger = impersonationTargets(identity).find((one) => !may(one))
  return stranger && forbidden(impersonator, 'impersonate', stranger)
}

/** Whom a request wants to be by its headers, names in lower case. @throws ApiError BadRequest */
export function wantedIdentity(headers: readonly HeaderPair[]): Identity | undefined {
  try {
    return impersonated(headers)
  } catch (error) {
    throw new ApiError('BadRequest', messageOf(error), {}, { cause: error })
  }
}

/** A list or watch of the one object that its field selector names is about that object, as for Kubernetes. */
function namedTarget(path: ResourcePath, verb: Verb, { searchParams }: RequestTarget): Target {
  const target = targetOf(path)
  if (path.name !== undefined || (verb !== 'list' && verb !== 'watch')) return target
  const [, name] = /^metadata\.name==?([^,=]+)$/.exec(parameter(searchParams, 'fieldSelector') ?? '') ?? []
  return name === undefined ? target : { ...target, name }
}

/** What is said to an identity that may not do it. */
export function forbidden(identity: Identity, verb: string, target: Target): ApiError {
  const who = `User ${JSON.stringify(identity.name)} cannot ${verb}`
  if ('path' in target) return new ApiError('Forbidden', `forbidden: ${who} path "${target.path}"`)
  const { group, resource: plural, namespace, name, subresource } = target
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
      ...(admitted?.impersonator && { impersonator: admitted.impersonator }),
      sourceIp: socket.remoteAddress ?? '',
      ...(userAgent !== undefined && { userAgent }),
    }),
  )
}
