import { createServer } from 'node:http'
import type { Prometheus } from './prometheus.ts'

export interface MetricsListener {
  /** The port it got, where 0 was asked for. */
  readonly port: number
  readonly close: () => Promise<void>
}

/** Readers of metrics are few; more are probably no readers. */
const mostConnections = 32
const requestMs = 10_000

/**
 * Serves `GET /metrics` and nothing else over plain HTTP to whoever can connect, for hosts that run no API and for those
 * that keep others away by other means. @throws node's error where it can't listen
 */
export async function listenForMetrics(
  metrics: Prometheus,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<MetricsListener> {
  const server = createServer(
    { headersTimeout: requestMs, requestTimeout: requestMs, maxHeaderSize: 8 * 1024 },
    async (request, response) => {
      request.resume()
      const [path] = (request.url ?? '').split('?')
      const code = path !== '/metrics' ? 404 : request.method !== 'GET' ? 405 : 200
      const text = code === 200 ? await metrics.text() : 'only GET /metrics is served here\n'
      const type = code === 200 ? metrics.contentType : 'text/plain; charset=utf-8'
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
