import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { onTestFinished } from 'vitest'
import { type WebSocket, WebSocketServer } from 'ws'
import { runProgram } from '../../src/cli/program.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { ensurePki } from '../../src/server/pki.ts'

export interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export type Answer = (seen: Seen, response: ServerResponse) => void

/** An HTTPS server with its own CA, a data directory that fits it, and the requests it saw. */
export interface FakeServer {
  readonly dataDir: string
  readonly address: string
  readonly seen: Seen[]
  /** What a WebSocket gets; without it, upgrades are refused. */
  onSocket: ((socket: WebSocket) => void) | undefined
  /** Runs one command line against it. */
  run(argv: readonly string[], options?: RunOptions): Promise<Result>
  close(): Promise<void>
}

export interface RunOptions {
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
  readonly server?: string
  /** Told of output as it comes. */
  readonly onOut?: (text: string) => void
  /** As if kubectl had called. */
  readonly plugin?: boolean
  /** As if at a terminal of so many columns. */
  readonly terminal?: number
}

export interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** JSON with a code. */
export function reply(response: ServerResponse, code: number, body: unknown): void {
  response.writeHead(code, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

/** A Status with a reason. */
export function refuse(
  response: ServerResponse,
  code: number,
  reason: string,
  message: string,
  details = {},
): void {
  reply(response, code, { kind: 'Status', status: 'Failure', reason, message, code, details })
}

/** Runs a command line with streams of its own. */
export async function runCommand(argv: readonly string[], options: RunOptions = {}): Promise<Result> {
  let out = ''
  let err = ''
  const stdin = new PassThrough()
  const terminal = options.terminal === undefined ? {} : { isTTY: true, columns: options.terminal }
  if (options.terminal === undefined) stdin.end(options.stdin ?? '')
  else if (options.stdin !== undefined) stdin.write(options.stdin)
  const code = await runProgram(argv, {
    stdin: Object.assign(stdin, terminal),
    stdout: {
      ...terminal,
      write: (text) => {
        out += text
        options.onOut?.(String(text))
      },
    },
    stderr: { ...terminal, write: (text) => (err += text) },
    env: { HOME: '/nonexistent', ...options.env },
    uid: 1000,
    clock: systemClock,
    signal: options.signal ?? new AbortController().signal,
    program: '/opt/plasmavmc/bin/plasmavmc',
    root: process.cwd(),
    plugin: options.plugin ?? false,
  })
  return { code, out, err }
}

/** Starts one that answers with `answer`. */
export async function fakeServer(answer: Answer): Promise<FakeServer> {
  const dataDir = await mkdtemp(join(tmpdir(), 'pvmc-client-'))
  const { key, cert } = await ensurePki(join(dataDir, 'pki'), { names: [], now: Date.now() })
  const keys = '[default]\naws_access_key_id = PVMCTEST\naws_secret_access_key = secret\n'
  await writeFile(join(dataDir, 'credentials'), keys, { mode: 0o600 })
  const seen: Seen[] = []
  const server = createServer({ key, cert }, async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const one = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body }
    seen.push(one)
    answer(one, response)
  })
  const sockets = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request, socket, head) => {
    const handle = fake.onSocket
    if (handle) return sockets.handleUpgrade(request, socket, head, handle)
    const body = JSON.stringify({ kind: 'Status', reason: 'Conflict', message: 'not running', code: 409 })
    socket.end(`HTTP/1.1 409 Conflict\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const fake: FakeServer = {
    dataDir,
    address,
    seen,
    onSocket: undefined,
    run: (argv, options = {}) =>
      runCommand(['--server', options.server ?? address, '--data-dir', dataDir, ...argv], options),
    close: async () => {
      for (const socket of sockets.clients) socket.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await rm(dataDir, { recursive: true })
    },
  }
  return fake
}

/** The same, for one test: it is closed when that has ended. */
export async function serving(answer: Answer): Promise<FakeServer> {
  const server = await fakeServer(answer)
  onTestFinished(() => server.close())
  return server
}
