import type { RawData, WebSocket } from 'ws'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { type Client, connect, failureOf } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { type Closed, consoleEnded } from './console-end.ts'
import { connectionError } from './http.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { machineName } from './targets.ts'

/** Ctrl-], as telnet has it. */
const leaveKey = 0x1d
/** Bytes that may wait for a slow server before input is held back. */
const maxUnsentBytes = 1 << 20
const openTimeoutMs = 15_000
const closeTimeoutMs = 2000
/** How long a guest may think over its answer to piped input. */
const quietMs = 2000

/** Opens a machine's serial console. @throws ServerError, PlasmaError where no server answers */
export function openConsole(client: Client, namespace: string, name: string): Promise<WebSocket> {
  return openSocket(client, `${pathOf(kindOf('vm'), namespace, name)}/console`)
}

/**
 * Opens a WebSocket on a path, paused. @param protocols subprotocols that are asked for
 * @throws ServerError for a Status, PlasmaError where no server answers
 */
export async function openSocket(
  client: Client,
  path: string,
  protocols: readonly string[] = [],
): Promise<WebSocket> {
  const [{ WebSocket: Socket }, { url, headers, trust }] = await Promise.all([
    import('ws'),
    client.signedSocket(path),
  ])
  const address = `wss://${url.host}${url.pathname}${url.search}`
  const socket = new Socket(address, [...protocols], {
    headers,
    ...trust,
    handshakeTimeout: openTimeoutMs,
    perMessageDeflate: false,
  })
  // Paused: what the guest says before somebody listens is not lost.
  socket.once('open', () => socket.pause())
  await new Promise<void>((resolve, reject) => {
    socket.once('open', resolve)
    socket.on('error', (error) => reject(connectionError(error, client.address, client.connection.flags)))
    socket.once('unexpected-response', (_request, answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.length < 64 && chunks.push(chunk))
      answer.once('close', () => {
        reject(failureOf(answer.statusCode ?? 0, Buffer.concat(chunks).toString()))
        socket.terminate()
      })
    })
  })
  return socket
}

/** The bytes of a message, however ws delivers them. */
export function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data)
  return data instanceof ArrayBuffer ? Buffer.from(data) : data
}

function sendInput(socket: WebSocket, io: Io, raw: boolean, leave: () => void): () => void {
  const onData = (chunk: Buffer | string) => {
    const bytes = Buffer.from(chunk)
    const end = raw ? bytes.indexOf(leaveKey) : -1
    const wanted = end < 0 ? bytes : bytes.subarray(0, end)
    if (wanted.length > 0) {
      socket.send(wanted, () => io.stdin.resume())
      if (socket.bufferedAmount > maxUnsentBytes) io.stdin.pause()
    }
    if (end >= 0) leave()
  }
  io.stdin.on('data', onData)
  return () => {
    io.stdin.off('data', onData)
    io.stdin.pause()
  }
}

/**
 * Joins terminal and guest until either leaves. Piped input's end does not: the guest's answer is still to come.
 * @returns how the other side closed; undefined where we left
 */
async function attach(socket: WebSocket, name: string, io: Io): Promise<Closed | undefined> {
  const raw = io.stdin.isTTY === true
  if (raw) {
    io.stderr.write(`Connected to ${name}; Ctrl-] leaves. Press Enter if nothing shows.\r\n`)
    io.stdin.setRawMode?.(true)
  }
  let left = false
  const leave = () => {
    // A socket that is closing was closed by the other side.
    left ||= socket.readyState === socket.OPEN
    socket.close(1000)
    // A server that does not answer the close must not hold the terminal.
    const cancel = io.clock.after(closeTimeoutMs, () => socket.terminate())
    socket.once('close', cancel)
  }
  const restore = sendInput(socket, io, raw, leave)
  io.signal.addEventListener('abort', leave, { once: true })
  try {
    const ended = new Promise<Closed>((resolve) => {
      socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }))
    })
    socket.on('message', (data) => io.stdout.write(bytesOf(data)))
    socket.resume()
    if (io.signal.aborted) leave()
    else if (!raw) untilQuiet(socket, io, quietMs, leave)
    const closed = await ended
    return left || io.signal.aborted ? undefined : closed
  } finally {
    io.signal.removeEventListener('abort', leave)
    restore()
    if (raw) {
      io.stdin.setRawMode?.(false)
      io.stderr.write(left ? `\r\nLeft ${name}; it runs on.\n` : '\r\n')
    }
  }
}

/** Leaves once piped input has ended and the guest was silent for `idleMs`. */
function untilQuiet(socket: WebSocket, io: Io, idleMs: number, leave: () => void): void {
  io.stdin.once('end', () => {
    let cancel = io.clock.after(idleMs, leave)
    socket.once('close', () => cancel())
    socket.on('message', () => {
      cancel()
      cancel = io.clock.after(idleMs, leave)
    })
  })
}

export const command: CommandModule<{ readonly output?: string }> = {
  define: (c) =>
    void c.argument('<name>', 'machine').option('-o, --output <format>', 'json: only how errors are written'),
  examples: ['console web', "console web <<< 'uname -a'"],
  run: async ({ args, options }, io) => {
    const name = machineName(args)
    const client = connect(options, io)
    const namespace = namespaceOf(options, io)
    const socket = await openConsole(client, namespace, name)
    try {
      const closed = await attach(socket, name, io)
      if (closed) throw await consoleEnded(client, { namespace, name }, closed, io)
      return 0
    } catch (error) {
      throw error instanceof PlasmaError ? error : new PlasmaError('ConsoleClosed', messageOf(error))
    } finally {
      client.close()
    }
  },
}
