import type { IncomingMessage } from 'node:http'
import { Agent, type RequestOptions, request } from 'node:https'
import type { Clock } from '../lib/clock.ts'
import { errnoOf, messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { ApiError, isReason } from './errors.ts'
import { errorOfStatus } from './kube-errors.ts'
import { type Query, queryText } from './kube-paths.ts'

/** What a connection is made with, and what a request says of who sends it. */
export interface KubeCredential {
  readonly headers: Readonly<Record<string, string>>
  readonly tls: Pick<RequestOptions, 'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'servername'> & {
    readonly rejectUnauthorized?: boolean
  }
}

/** Where an API server is, and by what right it is asked. */
export interface KubeAccess {
  readonly server: URL
  /**
   * The credential of now: a token that runs out, or is in a file that changes, is another later.
   * @throws where none is to be had
   */
  credential(): Promise<KubeCredential>
  /** It was refused: read or make it anew the next time. */
  renew(): void
}

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  readonly query?: Query
  /** Sent as JSON. */
  readonly body?: unknown
}

export interface KubeHttpOptions {
  readonly access: KubeAccess
  readonly clock: Clock
  readonly log: Log
  /** Longest time for a whole call, ms. */
  readonly callMs?: number
  /** Longest answer that is read into memory. */
  readonly maxBytes?: number
}

const defaultCallMs = 15_000
const defaultMaxBytes = 128 << 20
/** Connections for calls at once; each watch has one of its own besides. */
const maxSockets = 16
/** A kernel asks a silent peer whether it lives after this long, ms. */
const keepAliveMs = 10_000
/** Head of an error's body that is read. */
const maxErrorBytes = 1 << 20

const untrusted = /^(CERT_|DEPTH_ZERO|UNABLE_TO_|SELF_SIGNED|ERR_TLS_CERT)/

/** HTTPS to one API server: deadlines, bounds, errors as ApiErrors. It retries nothing but a credential that has run out. */
export class KubeHttp {
  readonly #options: KubeHttpOptions
  #agents: { readonly tls: string; readonly calls: Agent; readonly watches: Agent } | undefined
  #complained = ''

  constructor(options: KubeHttpOptions) {
    this.#options = options
  }

  /**
   * What a call answers, as JSON.
   * @throws ApiError of the Status that it answered; `Timeout`, `ServiceUnavailable` where none came: whether a write
   *   was made is unknown then
   */
  async json(call: KubeRequest, signal?: AbortSignal): Promise<unknown> {
    const { clock, callMs = defaultCallMs, maxBytes = defaultMaxBytes } = this.#options
    const stop = new AbortController()
    const end = (why: unknown) => stop.abort(why)
    const onAbort = () => end(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted) onAbort()
    const cancel = clock.after(callMs, () => end(this.#late(call, callMs)))
    try {
      const answer = await this.#answer(call, stop.signal, 'calls')
      return parsed(await readAll(answer, maxBytes), call)
    } catch (error) {
      throw stop.signal.aborted ? stop.signal.reason : this.#problem(error, call)
    } finally {
      cancel()
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /**
   * The answer of a request that goes on, once its head is there; to be destroyed by who asked.
   * @throws ApiError as `json`
   */
  async stream(call: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { clock, callMs = defaultCallMs } = this.#options
    const stop = new AbortController()
    const onAbort = () => stop.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    const cancel = clock.after(callMs, () => stop.abort(this.#late(call, callMs)))
    try {
      const answer = await this.#answer(call, stop.signal, 'watches')
      answer.once('close', () => signal.removeEventListener('abort', onAbort))
      return answer
    } catch (error) {
      signal.removeEventListener('abort', onAbort)
      throw stop.signal.aborted ? stop.signal.reason : this.#problem(error, call)
    } finally {
      cancel()
    }
  }

  close(): void {
    this.#agents?.calls.destroy()
    this.#agents?.watches.destroy()
    this.#agents = undefined
  }

  async #answer(call: KubeRequest, signal: AbortSignal, kind: 'calls' | 'watches'): Promise<IncomingMessage> {
    try {
      return await this.#once(call, signal, kind)
    } catch (error) {
      if (!isReason(error, 'Unauthorized') || signal.aborted) throw error
      // A token that has run out looks the same as one that never was good: one other try tells.
      this.#options.access.renew()
      return this.#once(call, signal, kind)
    }
  }

  async #once(call: KubeRequest, signal: AbortSignal, kind: 'calls' | 'watches'): Promise<IncomingMessage> {
    const { access } = this.#options
    const credential = await until(access.credential(), signal)
    const body = call.body === undefined ? undefined : JSON.stringify(call.body)
    const headers: Record<string, string> = {
      ...credential.headers,
      accept: 'application/json',
      'user-agent': 'plasmavmc',
      ...(body !== undefined && {
        'content-type': 'application/json',
        'content-length': String(Buffer.byteLength(body)),
      }),
    }
    const agent = this.#agentsFor(credential)[kind]
    const url = new URL(access.server)
    const base = url.pathname.replace(/\/+$/, '')
    const answer = await send(
      {
        ...{ hostname: url.hostname.replace(/^\[|\]$/g, ''), port: url.port || 443, method: call.method },
        ...{ path: `${base}${call.path}${queryText(call.query ?? {})}`, headers, agent, signal },
      },
      body,
    )
    this.#answered()
    const code = answer.statusCode ?? 0
    if (code >= 200 && code < 300) return answer
    const text = await readAll(answer, maxErrorBytes)
    const { 'retry-after': retryAfter } = answer.headers
    throw errorOfStatus(code < 400 ? 500 : code, jsonOr(text), retryAfter)
  }

  /** Connections are kept as long as what they are made with stays. */
  #agentsFor({ tls }: KubeCredential) {
    const key = JSON.stringify(tls, (_name, value) =>
      Buffer.isBuffer(value) ? value.toString('base64') : value,
    )
    if (this.#agents?.tls === key) return this.#agents
    // Those that are under way end by themselves.
    const before = this.#agents
    const options = { keepAlive: true, keepAliveMsecs: keepAliveMs, ...tls }
    this.#agents = {
      tls: key,
      calls: new Agent({ ...options, maxSockets }),
      watches: new Agent({ ...options, maxFreeSockets: 0 }),
    }
    before?.calls.destroy()
    return this.#agents
  }

  #late({ method, path }: KubeRequest, ms: number): ApiError {
    const { server } = this.#options.access
    const error = new ApiError('Timeout', `${server.host} did not answer ${method} ${path} in ${ms / 1000} s`)
    this.#complain(error.message)
    return error
  }

  /** Says once that it does not answer, and once that it does again. */
  #complain(message: string): void {
    if (this.#complained === '') this.#options.log.warn('the API server does not answer', { message })
    this.#complained = message
  }

  #answered(): void {
    if (this.#complained !== '') this.#options.log.info('the API server answers again')
    this.#complained = ''
  }

  /** What went wrong on the way, as the error that says whether to try again. */
  #problem(error: unknown, { method, path }: KubeRequest): ApiError {
    if (error instanceof ApiError) return error
    const { host } = this.#options.access.server
    const code = errnoOf(error) ?? ''
    const hint = untrusted.test(code)
      ? 'the CA of the kubeconfig does not vouch for this server: another one has that address, or its CA is new'
      : 'is the server of the kubeconfig the right one, and does it run?'
    const message = `no answer from ${host} to ${method} ${path}: ${messageOf(error) || code}`
    this.#complain(message)
    return new ApiError('ServiceUnavailable', message, {}, { cause: error, hint })
  }
}

function send(options: RequestOptions, body: string | undefined): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request(options)
    outgoing.once('socket', (socket) => socket.setKeepAlive(true, keepAliveMs))
    outgoing.once('response', (answer) => {
      // Told by reading it.
      answer.on('error', () => {})
      resolve(answer)
    })
    // Also after the response: a server may answer before it has read everything, and then close.
    outgoing.on('error', (error) => {
      // A kept connection that the server closed while we took it: what only reads is sent again.
      if (options.method === 'GET' && outgoing.reusedSocket && errnoOf(error) === 'ECONNRESET')
        send(options, body).then(resolve, reject)
      else reject(error)
    })
    outgoing.end(body)
  })
}

/** A promise, or the signal's reason where that is aborted first. */
async function until<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) throw signal.reason
  const { promise, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

async function readAll(answer: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBytes) {
      answer.destroy()
      throw new ApiError('InternalError', `the answer has more than ${maxBytes >> 20} MiB`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function parsed(text: string, { method, path }: KubeRequest): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const hint = 'is the server of the kubeconfig an API server?'
    throw new ApiError('InternalError', `${method} ${path} was answered with no JSON`, {}, { cause, hint })
  }
}
