import type { IncomingMessage } from 'node:http'
import type { Clock } from '../lib/clock.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { type Access, proved, type SentHeaders, signedAccess, type TlsTrust } from './access.ts'
import { type Connection, connectionOf } from './connection.ts'
import { type Status, serverError } from './failure.ts'
import { connectionError, openHttp, readText } from './http.ts'
import type { GlobalOptions, Io } from './io.ts'
import { lines } from './lines.ts'

export interface RequestOptions {
  readonly query?: Readonly<Record<string, string | undefined>>
  /** Sent as JSON. */
  readonly body?: unknown
  readonly contentType?: string
  readonly accept?: string
  /** Longest wait for the answer's head, and again for its end. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface WatchOptions extends RequestOptions {
  /** Told when the server has taken the watch, before its first frame. */
  readonly onOpen?: () => void
}

export interface WatchFrame<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK'
  readonly object: T
}

/** One server's API, every request with what proves who sends it. Nothing is retried: a command says what happened and ends. */
export interface Client {
  readonly connection: Connection
  /** `host:port`. */
  readonly address: string
  /** The answer as JSON. @throws ServerError for a Status, PlasmaError where no server answered */
  json<T>(method: string, path: string, options?: RequestOptions): Promise<T>
  /** The answer as text; errors as for json. */
  text(method: string, path: string, options?: RequestOptions): Promise<string>
  /** The frames of a watch until the server ends it. @throws ServerError, also for an ERROR frame */
  watch<T>(path: string, options: WatchOptions): AsyncGenerator<WatchFrame<T>>
  /** URL and signed headers for a WebSocket that another library opens. */
  signedSocket(path: string): Promise<{ url: URL; headers: SentHeaders; trust: TlsTrust }>
  close(): void
}

const defaultTimeoutMs = 30_000

/** Turns an error answer into a ServerError, whatever its body is. */
export function failureOf(code: number, body: string): Error {
  try {
    const status = JSON.parse(body) as Status
    if (status?.kind === 'Status') return serverError(status)
  } catch {
    // Not JSON: something between us and the server answered. Shown as it is below.
  }
  const message = `HTTP ${code}: ${body.trim().slice(0, 500) || 'no further explanation'}`
  return serverError({ kind: 'Status', reason: 'Unknown', code, message })
}

/** The texts of Warning headers (RFC 7234 section 5.5), as Kubernetes sends them: `299 - "text"`. */
export function warningsOf(header: string | string[] | undefined): readonly string[] {
  const matches = String(header ?? '').matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)
  return [...matches].map(([, text = '']) => text.replace(/\\(.)/g, '$1'))
}

/** `host:port` as URLs have it. */
export function addressOf({ host, port }: Connection): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

function urlOf({ connection, prefix }: Access, path: string, query: RequestOptions['query']): URL {
  const url = new URL(`https://${addressOf(connection)}${prefix}${path}`)
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== '') url.searchParams.set(name, value)
  }
  // SigV4 signs %20; the form encoding of URLSearchParams writes a + for a space.
  url.search = url.search.replaceAll('+', '%20')
  return url
}

async function* frames<T>(answer: IncomingMessage): AsyncGenerator<WatchFrame<T>> {
  try {
    for await (const line of lines(answer)) {
      const frame = JSON.parse(line) as WatchFrame<T> | { type: 'ERROR'; object: Status }
      if (frame.type === 'ERROR') throw serverError(frame.object)
      yield frame
    }
  } finally {
    answer.destroy()
  }
}

/** Connects to the server that options and environment name; nothing is sent yet. @throws PlasmaError, UsageError */
export function connect(
  options: GlobalOptions,
  io: Pick<Io, 'env' | 'uid' | 'clock' | 'stderr' | 'signal' | 'access'>,
): Client {
  const warn = (text: string) => io.stderr.write(`Warning: ${text}\n`)
  if (io.access) return clientOf(io.access(), io.clock, warn, io.signal)
  return openClient(connectionOf(options, io), io.clock, io.env, warn, io.signal)
}

/** A client for one connection; `signal` ends what it waits for. @throws PlasmaError where the CA or the credentials can't be read */
export function openClient(
  connection: Connection,
  clock: Clock,
  env: Io['env'] = {},
  warn: (text: string) => void = () => {},
  signal?: AbortSignal,
): Client {
  return clientOf(signedAccess(connection, clock, env), clock, warn, signal)
}

function clientOf(access: Access, clock: Clock, warn: (text: string) => void, signal?: AbortSignal): Client {
  const { connection, trust } = access
  const address = addressOf(connection)
  const http = openHttp(trust, clock, { address, flags: connection.flags })

  const send = async (method: string, path: string, options: RequestOptions): Promise<IncomingMessage> => {
    const url = urlOf(access, path, options.query)
    const body = options.body === undefined ? '' : JSON.stringify(options.body)
    const plain: Record<string, string> = {
      accept: options.accept ?? 'application/json',
      'user-agent': 'plasmavmc',
    }
    if (body !== '') plain['content-type'] = options.contentType ?? 'application/json'
    if (body !== '') plain['content-length'] = String(Buffer.byteLength(body))
    // Of a body, the type is signed, too: two kinds of patch may be one text.
    const { 'content-type': type } = plain
    const signed = { host: url.host, ...(type !== undefined && { 'content-type': type }) }
    const headers = { ...plain, ...(await proved(access, { method, url, headers: signed, body })) }
    const timeoutMs = options.timeoutMs ?? defaultTimeoutMs
    const answer = await http.send({ method, url, headers, body }, timeoutMs, options.signal ?? signal)
    const code = answer.statusCode ?? 0
    for (const text of warningsOf(answer.headers['warning'])) warn(text)
    if (code < 400) return answer
    throw failureOf(code, await readText(answer, clock, timeoutMs))
  }

  const text = async (method: string, path: string, options: RequestOptions = {}): Promise<string> =>
    readText(await send(method, path, options), clock, options.timeoutMs ?? defaultTimeoutMs)

  return {
    connection,
    address,
    text,
    json: async <T>(method: string, path: string, options?: RequestOptions): Promise<T> => {
      const body = await text(method, path, options)
      try {
        return JSON.parse(body) as T
      } catch (error) {
        throw new PlasmaError('BadAnswer', `${address} answered no JSON: ${messageOf(error)}`, {
          hint: 'is this a PlasmaVMC server? check --server',
        })
      }
    },
    watch: async function* <T>(path: string, options: WatchOptions) {
      const answer = await send('GET', path, { ...options, query: { ...options.query, watch: 'true' } })
      options.onOpen?.()
      try {
        yield* frames<T>(answer)
      } catch (error) {
        // What the cut connection says of itself ("aborted") is not why it ended.
        if ((options.signal ?? signal)?.aborted) throw (options.signal ?? signal)?.reason
        throw connectionError(error, address, connection.flags)
      }
    },
    signedSocket: async (path) => {
      const url = urlOf(access, path, {})
      const headers = await proved(access, { method: 'GET', url, headers: { host: url.host }, body: '' })
      return { url, headers, trust }
    },
    close: () => http.close(),
  }
}
