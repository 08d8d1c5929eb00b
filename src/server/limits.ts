import type { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { ApiError } from '../store/errors.ts'

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
}

export const defaultLimits: Limits = {
  requestMs: 30_000,
  idleMs: 60_000,
  connections: 5_000,
  bodyBytes: 3 * 1024 * 1024,
  pendingBytes: 64 * 1024 * 1024,
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
    // The rest is not read; the connection must live on to say what is wrong.
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
