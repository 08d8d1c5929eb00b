import { createServer, type IncomingMessage } from 'node:http'
import type { ServerDeps } from './deps.ts'
import { healthAt, healthPaths } from './health.ts'
import type { Prometheus } from './prometheus.ts'
import { splitTarget } from './target.ts'

export interface MetricsListener {
  /** The port it got, where 0 was asked for. */
  readonly port: number
  readonly close: () => Promise<void>
}

/** Readers of metrics and health are few; more are probably no readers. */
const mostConnections = 32
const requestMs = 10_000

export interface MetricsListenOptions {
  readonly host: string
  readonly port: number
  /** What has to hold for this server to be ready, as the API tells it. */
  readonly ready: ServerDeps['ready']
}

/**
 * Serves `GET /metrics` and health over plain HTTP, and nothing else, to whoever can connect: for hosts that run no API, for
 * the probes of a kubelet, and for those that keep others away by other means. @throws node's error where it can't listen
 */
export async function listenForMetrics(
  metrics: Prometheus,
  { host, port, ready }: MetricsListenOptions,
): Promise<MetricsListener> {
  const server = createServer(
    { headersTimeout: requestMs, requestTimeout: requestMs, maxHeaderSize: 8 * 1024 },
    async (request, response) => {
      request.resume()
      const { code, text, type = 'text/plain; charset=utf-8' } = await answerTo(request, metrics, ready)
      response.writeHead(code, { 'content-type': type }).end(text)
    },
  )
  server.maxConnections = mostConnections
  server.setTimeout(requestMs * 6, (socket) => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port }, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

interface Answer {
  readonly code: number
  readonly text: string
  readonly type?: string
}

const served = 'only GET /metrics, /livez and /readyz are served here\n'

/** Never rejects: a check that fails by itself is a server that is not ready. */
async function answerTo(
  { method, url = '/' }: IncomingMessage,
  metrics: Prometheus,
  ready: ServerDeps['ready'],
): Promise<Answer> {
  const { pathname, searchParams } = splitTarget(url)
  const isHealth = healthPaths.has(pathname)
  if (!isHealth && pathname !== '/metrics') return { code: 404, text: served }
  if (method !== 'GET') return { code: 405, text: served }
  if (!isHealth) return { code: 200, text: await metrics.text(), type: metrics.contentType }
  return healthAt(pathname, searchParams.has('verbose'), ready)
}
