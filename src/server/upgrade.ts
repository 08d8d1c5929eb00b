import { randomUUID } from 'node:crypto'
import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { WebSocketServer } from 'ws'
import type { Clock } from '../lib/clock.ts'
import type { ResourceDefinition } from '../resources/define.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { ApiError } from '../store/errors.ts'
import { type Admitted, admit, recordAudit, refusedTo } from './admit.ts'
import { refOf } from './call.ts'
import { Consoles } from './console.ts'
import type { ServerDeps } from './deps.ts'
import type { FairQueue } from './fair.ts'
import { keepAlive } from './heartbeat.ts'
import type { Metrics } from './metrics.ts'
import { errorHeaders } from './refused.ts'
import { refusalPaid, seatFor } from './seating.ts'
import { statusOf } from './status.ts'
import { splitTarget } from './target.ts'
import { joinVnc, vncProtocol } from './vnc.ts'

/** Longest message of a client: people type, they don't upload. */
const maxMessageBytes = 64 * 1024
/** How long a client that was refused may take to read why, ms. */
const lingerMs = 5_000

/** WebSockets of consoles and displays; whatever is wrong is said as an HTTP Status before the upgrade. */
export function attachConsoles(
  app: FastifyInstance,
  deps: ServerDeps,
  metrics: Metrics,
  fair: FairQueue,
): void {
  const handleProtocols = (offered: Set<string>, request: IncomingMessage) =>
    isVnc(request) ? vncProtocol(offered) : ([...offered][0] ?? false)
  const sockets = new WebSocketServer({ noServer: true, maxPayload: maxMessageBytes, handleProtocols })
  const consoles = new Consoles()
  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const [id, receivedAt] = [randomUUID(), deps.clock.now()]
    let admitted: Admitted | undefined
    try {
      admitted = admit(request, Buffer.alloc(0), splitTarget(request.url ?? '/'), deps)
      const leave = await seatFor(admitted, fair, socket)
      const file = await socketFile(admitted, deps).finally(leave)
      hold(admitted, fair, socket)
      recordAudit(deps, request, { id, receivedAt, admitted, code: 101 })
      count(metrics, admitted, 101)
      sockets.handleUpgrade(request, socket, head, (client) => {
        client.once('close', metrics.consoleBegins())
        keepAlive(client, deps.clock)
        if (isVnc(request)) joinVnc(file, client)
        else consoles.attach(file, client)
      })
    } catch (thrown) {
      admitted ??= refusedTo(thrown)
      const error = refusalPaid(thrown, fair)
      const { code, body } = statusOf(error)
      if (code >= 500) deps.log.error('console upgrade failed', { auditID: id, err: error })
      recordAudit(deps, request, { id, receivedAt, admitted, code, reason: String(body['reason']) })
      count(metrics, admitted, code)
      refuse(socket, code, body, deps.clock)
    }
  }
  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy())
    void upgrade(request, socket, head)
  })
  app.addHook('preClose', async () => {
    consoles.close()
    for (const client of sockets.clients) client.terminate()
  })
}

const isVnc = ({ url = '/' }: IncomingMessage) => splitTarget(url).pathname.endsWith('/vnc')

/** The console or VNC socket of the running machine that a request names. @throws ApiError NotFound, Conflict */
export async function socketFile({ path }: Pick<Admitted, 'path'>, deps: ServerDeps): Promise<string> {
  const isMachine = path?.kind === (VirtualMachine as ResourceDefinition)
  const socketOf = { console: deps.consoleOf, vnc: deps.vncOf }[isMachine ? (path.subresource ?? '') : '']
  if (!path || !socketOf)
    throw new ApiError('NotFound', 'only virtualmachines/console and /vnc can be upgraded to a WebSocket')
  const ref = refOf({ path })
  const vm = await deps.objects.get(VirtualMachine, ref)
  const { group, plural: kind } = path.kind
  const details = { group, kind, name: ref.name }
  if (path.subresource === 'vnc' && !vm.spec.devices.vnc) {
    const hint = 'set spec.devices.vnc to true, then restart it'
    throw new ApiError('Conflict', `${ref.name} has no display: VNC is off`, details, { hint })
  }
  if (!vm.status?.process)
    throw new ApiError(
      'Conflict',
      `${ref.name} is not running: there is no ${path.subresource} to attach to`,
      details,
    )
  return socketOf(ref)
}

/** Counts a console or display for as long as its connection lasts. @throws ApiError TooManyRequests */
function hold({ identity }: Admitted, fair: FairQueue, socket: Duplex): void {
  const leave = fair.console(identity.name)
  socket.once('close', leave)
  // It went while it waited for its turn.
  if (socket.destroyed) leave()
}

function count(metrics: Metrics, admitted: Admitted | undefined, code: number): void {
  const { kind, subresource = '' } = admitted?.path ?? {}
  const resource = kind?.plural ?? ''
  metrics.countConnect({ resource, subresource: isAttachable(subresource) ? subresource : '', code })
}

const isAttachable = (subresource: string) => subresource === 'console' || subresource === 'vnc'

function refuse(socket: Duplex, code: number, body: Readonly<Record<string, unknown>>, clock: Clock): void {
  const text = JSON.stringify(body)
  const lines = [
    `HTTP/1.1 ${code} ${STATUS_CODES[code] ?? 'Error'}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(text)}`,
    ...Object.entries(errorHeaders({ code, body })).map(([name, value]) => `${name}: ${value}`),
    'connection: close',
  ]
  socket.end(`${lines.join('\r\n')}\r\n\r\n${text}`)
  // The other side may never close its own.
  socket.once(
    'close',
    clock.after(lingerMs, () => socket.destroy()),
  )
}
