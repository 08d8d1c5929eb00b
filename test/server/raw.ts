import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { authenticate } from '../../src/auth/authenticate.ts'
import { mastersGroup } from '../../src/auth/identity.ts'
import { signRequest } from '../../src/auth/sign.ts'
import type { ServerDeps } from '../../src/server/server.ts'
import { credentials } from '../auth/fixture.ts'
import { type Lab, lab } from './fixture.ts'

export const identity = { name: 'admin', groups: [mastersGroup] }
const scope = { region: 'local', service: 'plasmavmc' }

export interface Door {
  readonly server: Lab
  readonly host: string
  /** Sends bytes over a connection of their own. @returns everything that was answered until it was closed */
  readonly send: (bytes: string | Buffer, options?: SendOptions) => Promise<string>
  /** The bytes of a signed request. */
  readonly signed: (change?: Partial<Sent>) => string
  readonly close: () => Promise<void>
}

export interface SendOptions {
  /** This side stays open until the other closes. */
  readonly open?: boolean
  /** Address to send from; 127.0.0.1 unless told. */
  readonly from?: string
}

export interface Sent {
  readonly method: string
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** Wall milliseconds. */
  readonly now: number
}

/** A server with real signatures on a real port. */
export async function door(change: Partial<ServerDeps> = {}): Promise<Door> {
  const key = { secret: credentials.secretAccessKey, identity }
  const secretOf = (id: string) => (id === credentials.accessKeyId ? key : undefined)
  const server = await lab({
    authenticate: (request) => authenticate(request, { ...scope, secretOf, now: Date.now() }),
    ...change,
  })
  await server.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = server.app.server.address() as AddressInfo
  const host = `127.0.0.1:${port}`
  return {
    ...{ server, host, close: () => server.app.close() },
    send: (bytes, { open = false, from = '127.0.0.1' } = {}) => exchange({ port, from }, bytes, open),
    signed: (sent = {}) => textOf(host, sent),
  }
}

/** The lines of a request as it goes over the wire, the signature made by our signer. */
function textOf(host: string, sent: Partial<Sent>): string {
  const { method = 'GET', target = '/api/v1/namespaces', headers = {}, body = '', now = Date.now() } = sent
  const url = new URL(`http://${host}${target}`)
  const all = signRequest({
    method,
    url,
    headers: { connection: 'close', ...headers },
    body,
    credentials,
    now,
    ...scope,
  })
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`)
  const length = body === '' ? [] : [`content-length: ${Buffer.byteLength(body)}`]
  return `${method} ${target} HTTP/1.1\r\n${[...lines, ...length].join('\r\n')}\r\n\r\n${body}`
}

const deadlineMs = 20_000

/** With `open` this side stays open until the other closes; else it says at once that nothing more comes. */
function exchange(
  { port, from }: { readonly port: number; readonly from: string },
  bytes: string | Buffer,
  open: boolean,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from })
    let text = ''
    const timer = setTimeout(
      () => socket.destroy(new Error(`no end after ${text.length} characters`)),
      deadlineMs,
    )
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
    })
    socket.once('error', (error) =>
      (error as { code?: string }).code === 'ECONNRESET' ? socket.destroy() : reject(error),
    )
    socket.once('close', () => {
      clearTimeout(timer)
      resolve(text)
    })
    socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
    if (!open) socket.end()
  })
}

/** The status codes of all answers in a text. */
export function codesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, code]) => Number(code))
}
