import type { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { ApiError } from '../store/errors.ts'
import { defaultFairLimits, type FairLimits } from './fair.ts'

/** What keeps clients from taking more than their share, whoever they are. */
export interface Limits {
  /** From the first byte of a request, or from the connection where none comes, to its last. */
  readonly requestMs: number
  /** How long nothing may move on a connection while it is not a watch or a console. */
  readonly idleMs: number
  readonly connections: number
  /** Longest body. */
  readonly bodyBytes: number
  /** Bodies being received at once, in all: their senders are not known yet. */
  readonly pendingBytes: number
  /** Of a body that is refused, at most so much is still read, and thrown away, so that its sender hears why. */
  readonly restBytes: number
  /** For at most so long. */
  readonly restMs: number
  /** How long a server that is told to end waits for the answers that are under way. */
  readonly endMs: number
  /** How requests whose sender is known share the server. */
  readonly fair: FairLimits
}

export const defaultLimits: Limits = {
  requestMs: 30_000,
  idleMs: 60_000,
  connections: 5_000,
  bodyBytes: 3 * 1024 * 1024,
  pendingBytes: 64 * 1024 * 1024,
  restBytes: 32 * 1024 * 1024,
  restMs: 3_000,
  endMs: 2_000,
  fair: defaultFairLimits,
}

/** Options of node's HTTP and HTTPS servers. */
export function serverOptions({ requestMs }: Limits) {
  return {
    // How often connections are looked at.
    connectionsCheckingInterval: Math.ceil(requestMs / 6),
    headersTimeout: requestMs,
    requestTimeout: requestMs,
    handshakeTimeout: requestMs,
  }
}

type Done = (error: Error | null, body?: Buffer) => void

/** Bodies are collected whole, within the limits, whatever their type. */
export function collectBodies(app: FastifyInstance, limits: Limits): void {
  let pending = 0
  const collect = (_request: unknown, payload: IncomingMessage, done: Done) => {
    if (isTooLong(payload, limits)) return done(tooLarge(limits))
    const chunks: Buffer[] = []
    let size = 0
    // The connection must live on to say what is wrong: see `saidFirst`.
    const end = (error: Error | null) => {
      payload.off('data', take).off('end', whole).off('error', end).off('close', broken)
      if (error) payload.pause()
      pending -= size
      done(error, error ? undefined : chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))
    }
    const take = (chunk: Buffer) => {
      size += chunk.length
      pending += chunk.length
      chunks.push(chunk)
      if (size > limits.bodyBytes) end(tooLarge(limits))
      else if (pending > limits.pendingBytes) end(tooMany())
    }
    const whole = () => end(null)
    const broken = () => end(new ApiError('BadRequest', 'the body ended before its end'))
    payload.on('data', take).on('end', whole).on('error', end).on('close', broken)
  }
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', collect as never)
  // One that asks before it sends is told at once: the answer to one that sends may be lost as its connection is closed.
  app.server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    if (!isTooLong(request, limits)) response.writeContinue()
    app.server.emit('request', request, response)
  })
}

/**
 * An answer to a request of which not all is read, as a stream that ends once its rest is read and thrown away, within
 * the limits. A connection that is closed on unread bytes is reset, and the other side loses what it was sent.
 */
export function saidFirst(text: string, request: IncomingMessage, limits: Limits): Readable | string {
  const waitsForUs = isTooLong(request, limits) && request.headers.expect !== undefined
  if (request.complete || request.destroyed || waitsForUs) return text
  return Readable.from(
    (async function* () {
      yield text
      await readRest(request, limits)
    })(),
    { objectMode: false },
  )
}

function readRest(request: IncomingMessage, { restBytes, restMs }: Limits): Promise<void> {
  return new Promise((resolve) => {
    let left = restBytes
    const take = (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) end()
    }
    const end = () => {
      clearTimeout(timer)
      request.off('data', take).off('end', end).off('close', end).off('error', end)
      resolve()
    }
    const timer = setTimeout(end, restMs)
    request.on('data', take).on('end', end).on('close', end).on('error', end).resume()
    if (request.complete || request.destroyed) end()
  })
}

const isTooLong = ({ headers }: IncomingMessage, { bodyBytes }: Limits) =>
  Number(headers['content-length'] ?? 0) > bodyBytes

function tooLarge({ bodyBytes }: Limits): ApiError {
  return new ApiError('RequestEntityTooLarge', `the body is too large: the limit is ${bodyBytes} bytes`)
}

function tooMany(): ApiError {
  return new ApiError('TooManyRequests', 'too many bodies are being received at once: try again later', {
    retryAfterSeconds: 1,
  })
}

/**
 * A watch may be silent for hours; the connection is held to the limit again when it is over. Requests that are
 * injected have no connection.
 */
export function whileSilent(response: ServerResponse, { idleMs }: Limits): () => void {
  const { socket } = response
  if (!(socket instanceof Socket)) return () => {}
  socket.setTimeout(0)
  return () => {
    if (!socket.destroyed) socket.setTimeout(idleMs)
  }
}
