import { randomUUID } from 'node:crypto'
import type { OutgoingHttpHeaders } from 'node:http'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { withLogFields } from '../lib/log.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { reviewKinds } from '../resources/reviews.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { ApiError } from '../store/errors.ts'
import { errorSyntax, type Form, negotiate } from './accept.ts'
import { type Admitted, admit, recordAudit, refusedTo } from './admit.ts'
import { mediaType, parseBody } from './body.ts'
import { type Answer, type Call, type HandlerDeps, refOf } from './call.ts'
import type { ServerDeps } from './deps.ts'
import { Documents, subresources } from './discovery.ts'
import { duplicateKeys } from './duplicate-keys.ts'
import { FairQueue } from './fair.ts'
import { handle } from './handlers.ts'
import { healthAt, healthPaths } from './health.ts'
import { collectBodies, defaultLimits, saidFirst, serverOptions, whileSilent } from './limits.ts'
import { Metrics } from './metrics.ts'
import type { ResourcePath } from './path.ts'
import { Prometheus } from './prometheus.ts'
import { numberOf, parameter } from './query.ts'
import { errorHeaders } from './refused.ts'
import { isReview, review } from './reviews.ts'
import { refusalPaid, seatFor } from './seating.ts'
import { sendAnswer, sendDocument } from './send.ts'
import { statusOf } from './status.ts'
import { type RequestTarget, splitTarget } from './target.ts'
import { UnderWay } from './under-way.ts'
import { unreadable } from './unreadable.ts'
import { attachConsoles } from './upgrade.ts'
import { versionInfo } from './version.ts'
import { sendWatch, startWatch } from './watch.ts'
import { yamlText } from './yaml-text.ts'

export type { ServerDeps } from './deps.ts'

const logTailBytes = 64 * 1024
const maxLogBytes = 1024 * 1024
const openPaths: ReadonlySet<string> = new Set([...healthPaths, '/version'])

/** What one server's requests share. */
interface Shared {
  readonly deps: ServerDeps
  readonly handlerDeps: HandlerDeps
  readonly documents: Documents
  readonly metrics: Metrics
  readonly fair: FairQueue
  readonly prometheus: Prometheus
  readonly underWay: UnderWay
}

interface Context {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly url: RequestTarget
  readonly raw: Buffer
  readonly admitted: Admitted
}

/** The admin API: Kubernetes' REST dialect, every request signed. Call `listen`, or `inject` in tests. */
export function createServer(given: ServerDeps): FastifyInstance {
  const deps = { ...given, kinds: [...given.kinds, ...reviewKinds] }
  const limits = deps.limits ?? defaultLimits
  const broken = unreadable()
  const options = {
    bodyLimit: limits.bodyBytes,
    logger: false,
    routerOptions: { maxParamLength: 512 },
    requestTimeout: limits.requestMs,
    connectionTimeout: limits.idleMs,
    keepAliveTimeout: 72_000,
    forceCloseConnections: true as const,
    exposeHeadRoutes: false,
    clientErrorHandler: broken.refuse,
    ...(deps.tls ? { https: { ...deps.tls, ...serverOptions(limits) } } : { http: serverOptions(limits) }),
    frameworkErrors: (error: unknown, request: FastifyRequest, reply: FastifyReply) =>
      void fail(error, request, reply, deps),
  }
  const app = fastify(options as never) as unknown as FastifyInstance
  app.server.maxConnections = limits.connections
  app.server.prependListener('request', broken.seen)
  const prometheus = deps.metrics ?? new Prometheus({ clock: deps.clock, log: deps.log })
  const shared: Shared = {
    deps,
    prometheus,
    handlerDeps: { objects: deps.objects, clock: deps.clock, newId: randomUUID },
    documents: new Documents(deps.kinds),
    metrics: new Metrics(prometheus),
    fair: deps.fair ?? new FairQueue(limits.fair, deps.clock),
    underWay: new UnderWay(),
  }
  collectBodies(app, limits)
  app.setErrorHandler((error, request, reply) => fail(error, request, reply, deps))
  app.setNotFoundHandler((request, reply) => serve(request, reply, shared))
  attachConsoles(app, deps, shared.metrics, shared.fair)
  // Before the connections are cut: who is told nothing more could not tell whether a write was made.
  app.addHook('preClose', () => shared.underWay.end(deps.clock, limits.endMs))
  return app
}

/** Whatever is logged meanwhile bears the id under which the request is in the audit log. */
async function serve(request: FastifyRequest, reply: FastifyReply, shared: Shared): Promise<unknown> {
  const id = randomUUID()
  reply.header('audit-id', id)
  shared.underWay.begin(reply.raw)
  const ends = shared.metrics.requestBegins()
  return withLogFields({ auditID: id }, () => serveAs(id, request, reply, shared)).finally(ends)
}

async function serveAs(
  id: string,
  request: FastifyRequest,
  reply: FastifyReply,
  shared: Shared,
): Promise<unknown> {
  const { deps, metrics } = shared
  const receivedAt = deps.clock.now()
  const startedAt = deps.clock.elapsed()
  const url = splitTarget(request.raw.url ?? '/')
  const raw = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  if (request.method === 'GET' && openPaths.has(url.pathname)) return open(url, reply, deps)
  let admitted: Admitted | undefined
  try {
    refuseUnreadBody(request)
    admitted = admit(request.raw, raw, url, deps)
    const leave = await seatFor(admitted, shared.fair, reply.raw)
    const result = await answer({ request, reply, url, raw, admitted }, shared).finally(leave)
    recordAudit(deps, request.raw, { id, receivedAt, admitted, code: reply.statusCode })
    count(metrics, admitted, reply.statusCode, deps.clock.elapsed() - startedAt)
    return result
  } catch (thrown) {
    admitted ??= refusedTo(thrown)
    const error = refusalPaid(thrown, shared.fair)
    const { code, body } = statusOf(error)
    recordAudit(deps, request.raw, { id, receivedAt, admitted, code, reason: String(body['reason']) })
    count(metrics, admitted, code, deps.clock.elapsed() - startedAt)
    throw error
  }
}

/** A body that is not read is not hashed, and so is signed by nobody. @throws ApiError BadRequest */
function refuseUnreadBody(request: FastifyRequest): void {
  if (!isRead(request)) throw new ApiError('BadRequest', `a ${request.method} request has no body here`)
}

/** Whether there is no body, or all of it was read. */
function isRead({ headers, body }: FastifyRequest): boolean {
  const length = Number(headers['content-length'] ?? 0)
  return Buffer.isBuffer(body) || (length === 0 && headers['transfer-encoding'] === undefined)
}

function count(metrics: Metrics, admitted: Admitted | undefined, code: number, ms: number): void {
  const { path } = admitted ?? {}
  const known = path?.subresource !== undefined && Object.hasOwn(subresources(path.kind), path.subresource)
  const labels = {
    verb: admitted?.verb ?? '',
    resource: path?.kind.plural ?? '',
    subresource: known ? (path.subresource ?? '') : '',
    code,
  }
  metrics.countRequest(labels, ms)
}

async function answer(context: Context, shared: Shared): Promise<unknown> {
  const { request, reply, url, raw, admitted } = context
  const { path, verb } = admitted
  if (!path) return plainPath(context, shared)
  const watches = verb === 'watch' && !isReview(path.kind)
  const { form, syntax } = negotiate(request.headers.accept, watches ? ['json'] : undefined)
  if (watches) return watch(context, path, form, shared)
  if (request.method === 'GET' && path.name !== undefined) {
    if (path.subresource === 'log') return log(path, url, reply, shared.deps)
    if (path.subresource === 'console' || path.subresource === 'vnc')
      throw new ApiError('BadRequest', `${path.subresource} is a WebSocket: an upgrade request is required`)
  }
  const contentType = request.headers['content-type'] ?? 'application/json'
  const body = parseBody(raw, contentType, request.headers['content-encoding'])
  const duplicates = () => (/json$/.test(mediaType(contentType)) ? duplicateKeys(raw.toString(), body) : [])
  const { method } = request
  const { 'user-agent': userAgent = '' } = request.headers
  const query = url.searchParams
  const call: Call = { method, path, query, body, duplicates, contentType, form, syntax, userAgent }
  const result = isReview(path.kind)
    ? review(call, admitted.identity, shared.deps)
    : await handle(call, handlerDepsOf(admitted, shared))
  warn(reply, result)
  return sendAnswer(request.headers, reply, { ...result, syntax })
}

/** What somebody writes goes through their own view of the store. */
function handlerDepsOf({ identity }: Admitted, { deps, handlerDeps }: Shared): HandlerDeps {
  return deps.objectsFor ? { ...handlerDeps, objects: deps.objectsFor(identity) } : handlerDeps
}

async function plainPath(
  { request, reply, url }: Context,
  { deps, documents, prometheus }: Shared,
): Promise<unknown> {
  if (request.method === 'GET') {
    const document = documents.find(url.pathname, request.headers.accept)
    if (document) return sendDocument(request.headers, reply, url, document, deps.clock.now())
    if (url.pathname === '/metrics')
      return reply.header('content-type', prometheus.contentType).send(await prometheus.text())
  }
  throw new ApiError('NotFound', `the server could not find the requested resource: ${url.pathname}`)
}

function watch(
  { request, reply, url, admitted }: Context,
  path: ResourcePath,
  form: Form,
  { deps, metrics, fair, underWay }: Shared,
): undefined {
  const failed = (error: unknown) => logFailure('watch failed', error, request, reply, deps)
  const started = startWatch({ path, query: url.searchParams, form }, deps.objects, deps.clock, failed)
  const counted = fair.watch(admitted.identity.name, started.stop)
  // Written by hand: the head must go out before the first event, which may be hours away.
  reply.hijack()
  const head = { ...reply.getHeaders(), 'content-type': 'application/json' } as OutgoingHttpHeaders
  reply.raw.writeHead(200, head)
  reply.raw.flushHeaders()
  underWay.goesOn(reply.raw, started.stop)
  const { plural } = path.kind
  const ends = metrics.watchBegins(plural)
  const over = whileSilent(reply.raw, deps.limits ?? defaultLimits)
  void sendWatch(started, reply.raw, deps.clock, () => metrics.watchCut(plural)).finally(() => {
    over()
    ends()
    counted()
  })
  return undefined
}

/** Warning headers (RFC 7234 section 5.5, code 299), at most 20. */
function warn(reply: FastifyReply, { warnings = [] }: Answer): void {
  const quoted = (text: string) =>
    text
      .replace(/[^\x20-\x7e]/g, '?')
      .slice(0, 256)
      .replace(/["\\]/g, '\\$&')
  const texts = warnings.slice(0, 20).map((text) => `299 - "${quoted(text)}"`)
  if (texts.length > 0) reply.header('warning', texts)
}

/** What is told to whoever asks, without a signature. */
async function open(url: RequestTarget, reply: FastifyReply, deps: ServerDeps): Promise<unknown> {
  const path = url.pathname
  if (path === '/version') {
    reply.header('content-type', 'application/json')
    return reply.send(JSON.stringify(versionInfo(deps.version, deps.clusterId)))
  }
  const verbose = parameter(url.searchParams, 'verbose') !== undefined
  const { code, text } = await healthAt(path, verbose, deps.ready)
  return reply.code(code).header('content-type', 'text/plain; charset=utf-8').send(text)
}

async function log(
  path: ResourcePath,
  url: RequestTarget,
  reply: FastifyReply,
  deps: ServerDeps,
): Promise<unknown> {
  if (path.kind !== (VirtualMachine as ResourceDefinition) || !deps.logOf)
    throw new ApiError('NotFound', `there is no ${path.kind.plural}/log`)
  const bytes = Math.min(numberOf(url.searchParams, 'tailBytes') ?? logTailBytes, maxLogBytes)
  const text = await deps.logOf(refOf({ path }), bytes)
  return reply.header('content-type', 'text/plain; charset=utf-8').send(text)
}

function logFailure(
  what: string,
  err: unknown,
  { method, url }: FastifyRequest,
  reply: FastifyReply,
  { log }: ServerDeps,
): void {
  log.error(what, { auditID: reply.getHeader('audit-id'), method, path: url.split('?')[0], err })
}

function fail(error: unknown, request: FastifyRequest, reply: FastifyReply, deps: ServerDeps): unknown {
  const { code, body } = statusOf(error)
  if (code >= 500) logFailure('request failed', error, request, reply, deps)
  const syntax = errorSyntax(request.headers.accept)
  const text = syntax === 'yaml' ? yamlText(body) : JSON.stringify(body)
  reply.headers(errorHeaders({ code, body })).code(code).header('content-type', `application/${syntax}`)
  // Only a body that was not read, or not all of it, spoils the connection.
  if ((code !== 413 && code !== 429) || isRead(request)) return reply.send(Buffer.from(text))
  reply.header('connection', 'close').header('content-length', Buffer.byteLength(text))
  return reply.send(saidFirst(text, request.raw, deps.limits ?? defaultLimits))
}
