import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

const answers: Readonly<
  Record<string, { readonly code: number; readonly line: string; readonly message: string }>
> = {
  ERR_HTTP_REQUEST_TIMEOUT: {
    ...{ code: 408, line: '408 Request Timeout' },
    message: 'the request did not come to its end in time',
  },
  HPE_HEADER_OVERFLOW: {
    ...{ code: 431, line: '431 Request Header Fields Too Large' },
    message: 'the headers of the request are too large',
  },
}
const other = { code: 400, line: '400 Bad Request', message: 'this is no request of HTTP/1.1 (RFC 9112)' }

/**
 * Answers, with a Kubernetes Status, bytes that are no request, come too slowly or are too many, and closes their
 * connection. Where an answer is under way there it only closes: whatever followed would count as a part of it.
 * `seen` is to be told of every request; `refuse` is for node's event `clientError`.
 */
export function unreadable() {
  const latest = new WeakMap<object, ServerResponse>()
  return {
    seen: ({ socket }: IncomingMessage, response: ServerResponse): void => {
      latest.set(socket, response)
    },
    refuse: (error: NodeJS.ErrnoException, socket: Socket): void => {
      const response = latest.get(socket)
      const underWay = response?.headersSent === true && !response.writableFinished
      if (error.code === 'ECONNRESET' || !socket.writable || underWay) return void socket.destroy()
      socket.end(textOf(answers[error.code ?? ''] ?? other), () => socket.destroy())
    },
  }
}

function textOf({ code, line, message }: typeof other): string {
  const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message }
  const body = JSON.stringify({ ...status, reason: code === 408 ? 'Timeout' : 'BadRequest', code })
  const head = [`HTTP/1.1 ${line}`, 'content-type: application/json', `content-length: ${body.length}`]
  return `${[...head, 'connection: close'].join('\r\n')}\r\n\r\n${body}`
}
