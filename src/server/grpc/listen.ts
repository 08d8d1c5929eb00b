import { type AddressInfo, BlockList, createServer, isIPv6, type Server, type Socket } from 'node:net'
import { messageOf } from '../../lib/errors.ts'
import { defaultGrpcLimits } from './limits.ts'
import type { GrpcDeps, GrpcServer } from './server.ts'

export interface GrpcListener {
  /** Where it listens. */
  readonly address: string
  readonly port: number
  readonly tls: boolean
  /** Resolves when every connection is closed, at most the grace after. */
  close(): Promise<void>
}

export interface ListenOptions extends GrpcDeps {
  readonly host: string
  readonly port: number
  /** PEM texts, for every address but loopback ones: elsewhere a token in plain text would be anybody's. */
  readonly tls: { readonly key: string; readonly cert: string }
}

/**
 * Listens for gRPC. What speaks it is loaded with the first connection, so that servers of which nobody asks this start
 * as quickly, and are as small, as without. @throws the system's error where it can't listen
 */
export async function listenGrpc(options: ListenOptions): Promise<GrpcListener> {
  const { grpcLimits: limits = defaultGrpcLimits } = options
  const sockets = new Set<Socket>()
  const server = createServer()
  const bound = await listening(server, options)
  const tls = !isLoopback(bound.address)
  const spoken = loaded(options, tls)
  server.maxConnections = limits.connections
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    spoken.get().then(
      (grpc) => {
        if (!socket.destroyed) grpc.inject(socket)
      },
      (error: unknown) => {
        options.log.error('gRPC can not be loaded', { message: messageOf(error), err: error })
        socket.destroy()
      },
    )
  })
  return {
    address: bound.address,
    port: bound.port,
    tls,
    close: () => close(server, sockets, limits.graceMs, spoken.now(), options),
  }
}

function listening(server: Server, { host, port }: ListenOptions): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port }, () => {
      server.off('error', reject)
      resolve(server.address() as AddressInfo)
    })
  })
}

/** What speaks gRPC, from the first time it is asked for; where that fails, it is tried again the next time. */
function loaded(options: ListenOptions, tls: boolean) {
  let coming: Promise<GrpcServer> | undefined
  let here: GrpcServer | undefined
  const load = async () => {
    const { createGrpcServer } = await import('./server.ts')
    here = createGrpcServer(options, tls ? options.tls : undefined)
    return here
  }
  return {
    now: () => here,
    get: () => {
      coming ??= load().catch((error: unknown) => {
        coming = undefined
        throw error
      })
      return coming
    },
  }
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Whether what is sent to this address stays on this machine. */
export function isLoopback(address: string): boolean {
  return loopback.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

async function close(
  server: Server,
  sockets: ReadonlySet<Socket>,
  graceMs: number,
  grpc: GrpcServer | undefined,
  { clock }: ListenOptions,
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  grpc?.drain(graceMs)
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  // Those that wait to be spoken to have nothing under way.
  if (!grpc) cut()
  const cancel = clock.after(graceMs, cut)
  await closed
  cancel()
}
