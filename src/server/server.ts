import { randomUUID } from 'node:crypto'
import type { OutgoingHttpHeaders } from 'node:http'
import { Readable } from 'node:stream'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { withLogFields } from '../lib/log.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { ApiError } from '../store/errors.ts'
import { negotiate } from './accept.ts'
import { type Admitted, admit, recordAudit } from './admit.ts'
import { mediaType, parseBody } from './body.ts'
import { type Answer, type Call, type HandlerDeps, refOf } from './call.ts'
import type { ServerDeps } from './deps.ts'
import { discovery, subresources } from './discovery.ts'
import { duplicateKeys } from './duplicate-keys.ts'
import { handle } from './handlers.ts'
import { healthText } from './health.ts'
import { collectBodies, defaultLimits, saidFirst, serverOptions, whileSilent } from './limits.ts'
import { Metrics } from './metrics.ts'
import type { ResourcePath } from './path.ts'
import { Prometheus } from './prometheus.ts'
import { numberOf, parameter, parseFieldSelector } from './query.ts'
import { statusOf } from './status.ts'
import { type RequestTarget, splitTarget } from './target.ts'
import { unreadable } from './unreadable.ts'
import { attachConsoles } from './upgrade.ts'
import { sendWatch, startWatch } from './watch.ts'

export type { ServerDeps } from './deps.ts'

const logTailBytes = 64 * 1024
const maxLogBytes = 1024 * 1024
const openPaths: ReadonlySet<string> = new Set(['/livez', '/readyz', '/healthz', '/version'])

/** What one server's requests share. */
interface Shared {
  readonly deps: ServerDeps
  readonly handlerDeps: HandlerDeps
  readonly documents: ReadonlyMap<string, unknown>
  readonly metrics: Metrics
  readonly prometheus: Prometheus
}

interface Context {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly url: RequestTarget
  readonly raw: Buffer
  readonly admitted: Admitted
}

/** The admin API: Kubernetes' REST dialect, every request signed. Call `listen`, or `inject` in tests. */
export function createServer(deps: ServerDeps): FastifyInstance {
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
    documents: discovery(deps.kinds, ''),
    metrics: new Metrics(prometheus),
  }
  collectBodies(app, limits)
  app.setErrorHandler((error, request, reply) => fail(error, request, reply, deps))
  app.setNotFoundHandler((request, reply) => serve(request, reply, shared))
  attachConsoles(app, deps, shared.metrics)
  return app
}

/** Whatever is logged meanwhile bears the id under which the request is in the audit log. */
async function serve(request: FastifyRequest, reply: FastifyReply, shared: Shared): Promise<unknown> {
  const id = randomUUID()
  reply.header('audit-id', id)
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
    const result = await answer({ request, reply, url, raw, admitted }, shared)
    recordAudit(deps, request.raw, { id, receivedAt, admitted, code: reply.statusCode })
    count(metrics, admitted, reply.statusCode, deps.clock.elapsed() - startedAt)
    return result
  } catch (error) {
    const { code, body } = statusOf(error)
    recordAudit(deps, request.raw, { id, receivedAt, admitted, code, reason: String(body['reason']) })
    count(metrics, admitted, code, deps.clock.elapsed() - startedAt)
    throw error
  }
}

/** A body that is not read is not hashed, and so is signed by nobody. @throws ApiError BadRequest */
function refuseUnreadBody({ method, headers, body }: FastifyRequest): void {
  const length = Number(headers['content-length'] ?? 0)
  if (Buffer.isBuffer(body) || (length === 0 && headers['transfer-encoding'] === undefined)) return
  throw new ApiError('BadRequest', `a ${method} request has no body here`)
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
  const table = negotiate(request.headers.accept) === 'table'
  if (verb === 'watch') return watch(context, path, table, shared)
  if (request.method === 'GET' && path.name !== undefined) {
    if (path.subresource === 'log') return log(path, url, reply, shared.deps)
    if (path.subresource === 'console')
      throw new ApiError('BadRequest', 'a console is a WebSocket: an upgrade request is required')
  }
  const contentType = request.headers['content-type'] ?? 'application/json'
  const body = parseBody(raw, contentType, request.headers['content-encoding'])
  const duplicates = () => (/json$/.test(mediaType(contentType)) ? duplicateKeys(raw.toString(), body) : [])
  const { method } = request
  const { 'user-agent': userAgent = '' } = request.headers
  const query = url.searchParams
  const call: Call = { method, path, query, body, duplicates, contentType, table, userAgent }
  const result = await handle(call, shared.handlerDeps)
  warn(reply, result)
  return json(reply, result.code, result.body)
}

async function plainPath(
  { request, reply, url }: Context,
  { documents, prometheus }: Shared,
): Promise<unknown> {
  if (request.method === 'GET') {
    const document = documents.get(url.pathname)
    if (document !== undefined) return json(reply, 200, document)
    if (url.pathname === '/metrics')
      return reply.header('content-type', prometheus.contentType).send(await prometheus.text())
  }
  throw new ApiError('NotFound', `the server could not find the requested resource: ${url.pathname}`)
}

function watch(
  { reply, url }: Context,
  path: ResourcePath,
  table: boolean,
  { deps, metrics }: Shared,
): undefined {
  const fieldSelector = parameter(url.searchParams, 'fieldSelector')
  const chosen = parseFieldSelector(fieldSelector)
  const named = ({ metadata }: KubeObject) => path.name === undefined || metadata.name === path.name
  const matches = (object: KubeObject) => named(object) && chosen(object)
  const all = path.name === undefined && !fieldSelector
  const request = { path, query: url.searchParams, table, ...(!all && { matches }) }
  const started = startWatch(request, deps.objects, deps.clock)
  // Written by hand: the head must go out before the first event, which may be hours away.
  reply.hijack()
  const head = { ...reply.getHeaders(), 'content-type': 'application/json' } as OutgoingHttpHeaders
  reply.raw.writeHead(200, head)
  reply.raw.flushHeaders()
  const { plural } = path.kind
  const ends = metrics.watchBegins(plural)
  const over = whileSilent(reply.raw, deps.limits ?? defaultLimits)
  void sendWatch(started, reply.raw, deps.clock, () => metrics.watchCut(plural)).finally(() => {
    over()
    ends()
  })
  return undefined
}

function json(reply: FastifyReply, code: number, body: unknown): unknown {
  reply.code(code).header('content-type', 'application/json')
  return reply.send(typeof body === 'string' || body instanceof Readable ? body : JSON.stringify(body))
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
    const [major = '0', minor = '0'] = deps.version.split('.')
    const platform = `${process.platform}/${process.arch}`
    return json(reply, 200, { major, minor, gitVersion: `v${deps.version}`, platform })
  }
  const { code, text } = healthText(
    path.slice(1),
    path === '/readyz' ? await deps.ready() : [],
    parameter(url.searchParams, 'verbose') !== undefined,
  )
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

function fail(error: unknown, request: FastifyRequest, reply: FastifyReply, deps: ServerDeps): unknown {
  const { code, body } = statusOf(error)
  if (code >= 500)
    deps.log.error('request failed', {
      ...{ auditID: reply.getHeader('audit-id'), method: request.method },
      ...{ path: request.url.split('?')[0], err: error },
    })
  if (code === 401) reply.header('www-authenticate', 'AWS4-HMAC-SHA256')
  if (code !== 413 && code !== 429) return json(reply, code, body)
  const text = JSON.stringify(body)
  reply.header('connection', 'close').header('content-length', Buffer.byteLength(text))
  return json(reply, code, saidFirst(text, request.raw, deps.limits ?? defaultLimits))
}
