import { randomUUID } from 'node:crypto'
import { type IncomingMessage, type OutgoingHttpHeaders, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { WebSocketServer } from 'ws'
import { type AuditInput, type AuditRecord, auditRecord } from '../auth/audit.ts'
import type { Target, Verb } from '../auth/authorize.ts'
import { emptySha256, sha256Hex } from '../auth/hash.ts'
import { fromRawHeaders } from '../auth/header-pairs.ts'
import type { Identity } from '../auth/identity.ts'
import type { SignedRequest, Verdict } from '../auth/verify.ts'
import type { Clock } from '../lib/clock.ts'
import type { Log } from '../lib/log.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { ApiError } from '../store/errors.ts'
import type { Ref } from '../store/objects.ts'
import { parseBody } from './body.ts'
import { Consoles } from './console.ts'
import { discovery } from './discovery.ts'
import { type Answer, type Call, type HandlerDeps, handle } from './handlers.ts'
import { parsePath, type ResourcePath, targetOf, verbOf } from './path.ts'
import { flag, numberOf, parameter, parseFieldSelector, wantsTable } from './query.ts'
import { statusOf } from './status.ts'
import { watchStream } from './watch.ts'

export interface ServerDeps {
  readonly objects: HandlerDeps['objects']
  readonly kinds: readonly ResourceDefinition[]
  readonly authenticate: (request: SignedRequest) => Verdict
  readonly authorize: (identity: Identity, verb: Verb, target: Target) => boolean
  readonly audit: (record: AuditRecord) => void
  readonly log: Log
  readonly clock: Clock
  readonly version: string
  readonly tls?: { readonly key: string; readonly cert: string }
  readonly ready: () => readonly { readonly name: string; readonly ok: boolean; readonly message?: string }[]
  /** Path of a machine's console socket. */
  readonly consoleOf?: (ref: Ref) => Promise<string>
  readonly logOf?: (ref: Ref, bytes: number) => Promise<string>
}

const bodyLimit = 3 * 1024 * 1024
const logTailBytes = 64 * 1024
const maxLogBytes = 1024 * 1024
const openPaths: ReadonlySet<string> = new Set(['/livez', '/readyz', '/healthz', '/version'])

interface Admitted {
  readonly identity: Identity
  readonly verb: Verb
  readonly target: Target
  readonly path: ResourcePath | undefined
}

/** The admin API: Kubernetes' REST dialect, every request signed. Call `listen`, or `inject` in tests. */
export function createServer(deps: ServerDeps): FastifyInstance {
  const options = {
    bodyLimit,
    logger: false,
    routerOptions: { maxParamLength: 512 },
    requestTimeout: 30_000,
    connectionTimeout: 0,
    keepAliveTimeout: 72_000,
    forceCloseConnections: true as const,
    exposeHeadRoutes: false,
  }
  const app = (deps.tls
    ? fastify({ ...options, https: { ...deps.tls } })
    : fastify(options)) as unknown as FastifyInstance
  const documents = discovery(deps.kinds, '')
  const handlerDeps: HandlerDeps = { objects: deps.objects, clock: deps.clock, newId: randomUUID }
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error, request, reply) => fail(error, request, reply, deps))
  app.setNotFoundHandler((request, reply) => serve(request, reply, deps, handlerDeps, documents))
  attachConsoles(app, deps)
  return app
}

async function serve(
  request: FastifyRequest,
  reply: FastifyReply,
  deps: ServerDeps,
  handlerDeps: HandlerDeps,
  documents: ReadonlyMap<string, unknown>,
): Promise<unknown> {
  const receivedAt = deps.clock.now()
  const id = randomUUID()
  reply.header('audit-id', id)
  const url = new URL(request.raw.url ?? '/', 'https://server')
  const raw = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  if (request.method === 'GET' && openPaths.has(url.pathname)) return open(url.pathname, reply, deps)
  let admitted: Admitted | undefined
  try {
    admitted = admit(request.raw, raw, url, deps)
    const result = await answer({ request, reply, url, raw, admitted }, deps, handlerDeps, documents)
    record(deps, request, { id, receivedAt, admitted, code: reply.statusCode })
    return result
  } catch (error) {
    const { code, body } = statusOf(error)
    record(deps, request, { id, receivedAt, admitted, code, reason: String(body['reason']) })
    throw error
  }
}

interface Context {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly url: URL
  readonly raw: Buffer
  readonly admitted: Admitted
}

async function answer(
  { request, reply, url, raw, admitted }: Context,
  deps: ServerDeps,
  handlerDeps: HandlerDeps,
  documents: ReadonlyMap<string, unknown>,
): Promise<unknown> {
  const { path } = admitted
  if (!path) {
    const document =
      request.method === 'GET' ? documents.get(url.pathname.replace(/(.)\/$/, '$1')) : undefined
    if (document !== undefined) return json(reply, 200, document)
    throw new ApiError('NotFound', `the server could not find the requested resource: ${url.pathname}`)
  }
  const table = wantsTable(request.headers.accept)
  if (admitted.verb === 'watch') {
    const matches = parseFieldSelector(parameter(url.searchParams, 'fieldSelector'))
    const stream = watchStream({ path, query: url.searchParams, table, matches }, deps.objects, deps.clock)
    // Written by hand: the head must go out before the first event, which may be hours away.
    reply.hijack()
    reply.raw.writeHead(200, {
      ...reply.getHeaders(),
      'content-type': 'application/json',
    } as OutgoingHttpHeaders)
    reply.raw.flushHeaders()
    reply.raw.once('close', () => stream.stop())
    stream.frames.pipe(reply.raw)
    return undefined
  }
  if (path.subresource === 'log' && request.method === 'GET') return log(path, url, reply, deps)
  const contentType = request.headers['content-type'] ?? 'application/json'
  const call: Call = {
    method: request.method,
    path,
    query: url.searchParams,
    body: parseBody(raw, contentType),
    contentType,
    table,
  }
  const result = await handle(call, handlerDeps)
  warn(reply, result)
  return json(reply, result.code, result.body)
}

function json(reply: FastifyReply, code: number, body: unknown): unknown {
  reply.code(code).header('content-type', 'application/json')
  return reply.send(typeof body === 'string' ? body : JSON.stringify(body))
}

function warn(reply: FastifyReply, { warnings = [] }: Answer): void {
  const texts = warnings.slice(0, 20).map(
    (text) =>
      `299 - "${text
        .replace(/[^\x20-\x7e]/g, '?')
        .replace(/["\\]/g, '\\$&')
        .slice(0, 256)}"`,
  )
  if (texts.length > 0) reply.header('warning', texts)
}

/** Who it is and whether they may. @throws ApiError Unauthorized, Forbidden */
function admit(request: IncomingMessage, raw: Buffer, url: URL, deps: ServerDeps): Admitted {
  const { method = 'GET' } = request
  const bodySha256 = raw.length === 0 ? emptySha256 : sha256Hex(raw)
  const verdict = deps.authenticate({
    method,
    rawUrl: request.url ?? '/',
    headers: fromRawHeaders(request.rawHeaders),
    bodySha256,
  })
  if (!verdict.ok) throw new ApiError('Unauthorized', `${verdict.code}: ${verdict.message}`)
  const path = parsePath(url.pathname, deps.kinds)
  const verb = path ? verbOf(method, path, flag(url.searchParams, 'watch')) : (method.toLowerCase() as Verb)
  const target = path ? targetOf(path) : { path: url.pathname }
  const { identity } = verdict
  if (deps.authorize(identity, verb, target)) return { identity, verb, target, path }
  const what = path ? path.kind.plural : url.pathname
  throw new ApiError('Forbidden', `${what} is forbidden: user "${identity.name}" may not ${verb} it`)
}

function open(path: string, reply: FastifyReply, deps: ServerDeps): unknown {
  if (path === '/version') {
    const [major = '0', minor = '0'] = deps.version.split('.')
    return json(reply, 200, {
      major,
      minor,
      gitVersion: `v${deps.version}`,
      platform: `${process.platform}/${process.arch}`,
    })
  }
  const failing = path === '/readyz' ? deps.ready().filter(({ ok }) => !ok) : []
  reply.code(failing.length === 0 ? 200 : 503).header('content-type', 'text/plain')
  return reply.send(
    failing.length === 0
      ? 'ok'
      : failing.map(({ name, message }) => `${name}: ${message ?? 'not ready'}\n`).join(''),
  )
}

async function log(path: ResourcePath, url: URL, reply: FastifyReply, deps: ServerDeps): Promise<unknown> {
  if (path.kind !== (VirtualMachine as ResourceDefinition) || !deps.logOf)
    throw new ApiError('NotFound', `there is no ${path.kind.plural}/log`)
  const bytes = Math.min(numberOf(url.searchParams, 'tailBytes') ?? logTailBytes, maxLogBytes)
  const text = await deps.logOf(machineRef(path), bytes)
  return reply.header('content-type', 'text/plain; charset=utf-8').send(text)
}

function machineRef(path: ResourcePath): Ref {
  return { name: path.name ?? '', ...(path.namespace !== undefined && { namespace: path.namespace }) }
}

function fail(error: unknown, request: FastifyRequest, reply: FastifyReply, deps: ServerDeps): unknown {
  const { code, body } = statusOf(error)
  if (code >= 500)
    deps.log.error('request failed', { method: request.method, path: request.url.split('?')[0], err: error })
  if (code === 401) reply.header('www-authenticate', 'AWS4-HMAC-SHA256')
  return json(reply, code, body)
}

type Recorded = Pick<AuditInput, 'id' | 'receivedAt' | 'code'> & {
  readonly admitted: Admitted | undefined
  readonly reason?: string
}

/** What changes something, and what was refused, is recorded; reads are not. */
function record(deps: ServerDeps, request: FastifyRequest, { admitted, ...rest }: Recorded): void {
  const refused = rest.code === 401 || rest.code === 403
  if (request.method === 'GET' && !refused) return
  const userAgent = request.headers['user-agent']
  deps.audit(
    auditRecord({
      ...rest,
      answeredAt: deps.clock.now(),
      verb: admitted?.verb ?? (request.method.toLowerCase() as Verb),
      method: request.method,
      rawUrl: request.raw.url ?? '/',
      target: admitted?.target ?? { path: request.url.split('?')[0] ?? '/' },
      ...(admitted && { identity: admitted.identity }),
      sourceIp: request.ip,
      ...(userAgent !== undefined && { userAgent }),
    }),
  )
}

/** WebSocket consoles; whatever is wrong is said as an HTTP Status before the upgrade. */
function attachConsoles(app: FastifyInstance, deps: ServerDeps): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 16 })
  const consoles = new Consoles()
  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    try {
      const url = new URL(request.url ?? '/', 'https://server')
      const { path } = admit(request, Buffer.alloc(0), url, deps)
      if (
        path?.kind !== (VirtualMachine as ResourceDefinition) ||
        path.subresource !== 'console' ||
        !deps.consoleOf
      ) {
        throw new ApiError('NotFound', 'only virtualmachines/console can be upgraded to a WebSocket')
      }
      const ref = machineRef(path)
      const vm = await deps.objects.get(VirtualMachine, ref)
      if (!vm.status?.process)
        throw new ApiError('Conflict', `${ref.name} is not running: there is no console to attach to`)
      const file = await deps.consoleOf(ref)
      sockets.handleUpgrade(request, socket, head, (client) => consoles.attach(file, client))
    } catch (error) {
      const { code, body } = statusOf(error)
      const text = JSON.stringify(body)
      const lines = [
        `HTTP/1.1 ${code} ${STATUS_CODES[code] ?? 'Error'}`,
        'content-type: application/json',
        `content-length: ${Buffer.byteLength(text)}`,
        'connection: close',
      ]
      socket.end(`${lines.join('\r\n')}\r\n\r\n${text}`)
    }
  }
  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy())
    void upgrade(request, socket, head)
  })
  app.addHook('preClose', async () => {
    consoles.close()
    for (const client of sockets.clients) client.terminate()
  })
}
