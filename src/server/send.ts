import type { IncomingHttpHeaders } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { constants, createGzip } from 'node:zlib'
import type { FastifyReply } from 'fastify'
import type { Syntax } from './accept.ts'
import type { Document } from './discovery.ts'
import { yamlBody } from './yaml-text.ts'

/** From how many bytes on answers are compressed for who takes that, as in Kubernetes. */
const gzipFrom = 128 * 1024
const yearMs = 365 * 24 * 3_600_000

/** Sends a value in JSON or YAML; a string, or a stream, is text in it already, and a stream is long. */
export function sendAnswer(
  headers: IncomingHttpHeaders,
  reply: FastifyReply,
  { code, body, syntax }: { readonly code: number; readonly body: unknown; readonly syntax: Syntax },
): unknown {
  reply.code(code).header('content-type', `application/${syntax}`)
  return sendText(headers, reply, syntax === 'yaml' && !isText(body) ? yamlBody(body) : body)
}

const isText = (body: unknown) => typeof body === 'string' || body instanceof Readable

function sendText(headers: IncomingHttpHeaders, reply: FastifyReply, body: unknown): unknown {
  const content = body instanceof Readable ? body : bytesOf(body)
  if (!(content instanceof Readable) && content.length < gzipFrom) return reply.send(content)
  reply.header('vary', reply.hasHeader('vary') ? 'Accept, Accept-Encoding' : 'Accept-Encoding')
  if (!takesGzip(headers['accept-encoding'])) return reply.send(content)
  const source = content instanceof Readable ? content : Readable.from([content])
  // The quickest level, as Kubernetes takes: clients are near.
  const packed = createGzip({ level: constants.Z_BEST_SPEED })
  // A client that goes away ends both; the reply tells.
  pipeline(source, packed, () => {})
  return reply.header('content-encoding', 'gzip').send(packed)
}

/** Bytes, not text: of text the content type would be rewritten, with a charset, and old kubectls compare it whole. */
function bytesOf(body: unknown): Buffer {
  if (Buffer.isBuffer(body)) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}

/** Whether an Accept-Encoding header (RFC 9110 section 12.5.3) takes gzip by name. */
export function takesGzip(accepts: string | string[] | undefined = ''): boolean {
  return String(accepts)
    .split(',')
    .some((one) => {
      const [name = '', ...rest] = one.split(';').map((part) => part.trim().toLowerCase())
      return name === 'gzip' && !rest.some((part) => /^q=0(\.0*)?$/.test(part))
    })
}

/** Whether an If-None-Match header (RFC 9110 section 13.1.2) names what would be sent. */
function isKnown(header: string | undefined, etag: string): boolean {
  const tags = (header ?? '').split(',').map((tag) => tag.trim().replace(/^W\//, ''))
  return tags.includes(etag) || tags.includes('*')
}

/**
 * Sends a document, or 304 where the client has it. One that is asked for by its hash never changes, and may be kept; who
 * asks by an old hash is sent to the new one.
 * @param now wall milliseconds
 */
export function sendDocument(
  headers: IncomingHttpHeaders,
  reply: FastifyReply,
  { pathname, searchParams }: { readonly pathname: string; readonly searchParams: URLSearchParams },
  { content, type, hash }: Document,
  now: number,
): unknown {
  const wanted = searchParams.get('hash')
  if (wanted && wanted !== hash) return reply.code(301).header('location', `${pathname}?hash=${hash}`).send()
  if (wanted) {
    reply.header('cache-control', 'public, immutable')
    reply.header('expires', new Date(now + yearMs).toUTCString())
  }
  const etag = `"${hash}"`
  reply.header('etag', etag).header('vary', 'Accept')
  // Without a type: caches take the headers of a 304 for those of what they keep.
  if (isKnown(headers['if-none-match'], etag)) return reply.code(304).send()
  return sendText(headers, reply.code(200).header('content-type', type), content)
}
