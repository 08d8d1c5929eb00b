import { createServer, type Server, type Socket } from 'node:net'
import type { WebSocket } from 'ws'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { type Client, connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { bytesOf, openSocket } from './console.ts'
import { renderError, UsageError } from './failure.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { machineName } from './targets.ts'

/** KubeVirt's name for bytes as they are. */
const protocol = 'plain.kubevirt.io'
/** The server takes longer messages for an attack. */
const longestMessage = 32 * 1024
const maxUnsentBytes = 1 << 20
const maxViewers = 16

/** `host:port` of --listen; a port of 0 is any free one. @throws UsageError */
export function listenOf(text: string): { readonly host: string; readonly port: number } {
  const [, host = '', port = ''] = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/.exec(text) ?? []
  if (host === '' || Number(port) > 65_535) {
    throw new UsageError(`"${text}" is no address to listen on`, 'write host:port, such as 127.0.0.1:5901')
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** Joins a viewer to a machine's display until either leaves; each is read only as fast as the other takes it. */
function join(viewer: Socket, display: WebSocket): Promise<string> {
  return new Promise((resolve) => {
    viewer.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; at += longestMessage) {
        const piece = chunk.subarray(at, at + longestMessage)
        display.send(piece, () => display.bufferedAmount < maxUnsentBytes && viewer.resume())
      }
      if (display.bufferedAmount >= maxUnsentBytes) viewer.pause()
    })
    display.on('message', (data) => {
      if (!viewer.write(bytesOf(data))) display.pause()
    })
    viewer.on('drain', () => display.resume())
    // It may have gone while the socket was opened.
    if (viewer.destroyed) display.close(1000)
    viewer.on('close', () => display.close(1000))
    display.on('close', (code, reason) => {
      viewer.end()
      resolve(code === 1011 ? reason.toString() : '')
    })
    display.resume()
    viewer.resume()
  })
}

async function listen(server: Server, { host, port }: ReturnType<typeof listenOf>): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve).once('error', reject).listen(port, host)
  }).catch((error: unknown) => {
    const why = errnoOf(error) === 'EADDRINUSE' ? 'it is in use' : messageOf(error)
    throw new PlasmaError('ListenFailed', `--listen: ${host}:${port}: ${why}`, {
      hint: 'choose another port, or 0 for any free one',
      cause: error,
    })
  })
  const address = server.address()
  const chosen = typeof address === 'object' && address ? address.port : port
  return `${host.includes(':') ? `[${host}]` : host}:${chosen}`
}

/** Leads every connection on a local port to the display, until Ctrl-C. */
async function proxy(client: Client, path: string, place: ReturnType<typeof listenOf>, name: string, io: Io) {
  const viewers = new Set<Socket>()
  const server = createServer({ pauseOnConnect: true }, (viewer) => {
    viewers.add(viewer)
    viewer.on('error', () => viewer.destroy())
    viewer.once('close', () => viewers.delete(viewer))
    void openSocket(client, path, [protocol])
      .then((display) => join(viewer, display))
      .then((why) => why !== '' && io.stderr.write(`the display of ${name} closed: ${why}\n`))
      .catch((error: unknown) => {
        io.stderr.write(renderError(error))
        viewer.destroy()
      })
  })
  server.maxConnections = maxViewers
  const address = await listen(server, place)
  io.stdout.write(`${name} shows its display on ${address} (VNC); Ctrl-C ends this, not the machine\n`)
  if (!/^(localhost|127\.|\[::1\])/.test(address))
    io.stderr.write(
      'Warning: whoever reaches this address sees and uses the machine; VNC asks for no password\n',
    )
  await new Promise<void>((resolve) => {
    if (io.signal.aborted) resolve()
    else io.signal.addEventListener('abort', () => resolve(), { once: true })
  })
  server.close()
  for (const viewer of viewers) viewer.destroy()
}

export const command: CommandModule<{ readonly listen: string; readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<name>', 'machine')
      .option('--listen <host:port>', 'where viewers connect; port 0 is any free one', '127.0.0.1:0')
      .option('-o, --output <format>', 'json: only how errors are written'),
  examples: ['vnc web --listen 127.0.0.1:5901   # then: vncviewer 127.0.0.1:5901'],
  run: async ({ args, options }, io) => {
    const name = machineName(args)
    const place = listenOf(options.listen)
    const client = connect(options, io)
    const path = `${pathOf(kindOf('vm'), namespaceOf(options, io), name)}/vnc`
    try {
      // What is wrong is said now, not to the first viewer.
      const trial = await openSocket(client, path, [protocol])
      trial.terminate()
      await proxy(client, path, place, name, io)
      return 0
    } finally {
      client.close()
    }
  },
}
