import type { Config } from './config.ts'
import { defaultGrpcAddress } from './lib/dirs.ts'
import { adviceOf } from './lib/errors.ts'
import { type ListenOptions, listenGrpc } from './server/grpc/listen.ts'
import { addressText, listenError } from './wire-listen.ts'

/** What a certificate has to name for clients of gRPC. */
export function grpcNames({ grpcListen }: Pick<Config, 'grpcListen'>): string[] {
  return grpcListen === undefined || grpcListen === 'none' ? [] : [grpcListen.host]
}

/**
 * Serves gRPC where the configuration says so. An address that was asked for must be free; the default one is often
 * another server's on the same machine, which is no reason not to start.
 * @throws PlasmaError `PortTaken`, `ListenFailed`
 */
export async function startGrpc(
  { grpcListen, hostName }: Pick<Config, 'grpcListen' | 'hostName'>,
  deps: Omit<ListenOptions, 'host' | 'port' | 'hostName'>,
): Promise<{ close(): Promise<void> }> {
  const off = { close: async () => {} }
  if (grpcListen === 'none') return off
  const wanted = grpcListen ?? defaultGrpcAddress
  try {
    const listener = await listenGrpc({ ...deps, ...wanted, hostName })
    const address = addressText({ host: listener.address, port: listener.port })
    deps.log.info('gRPC is served', { address, tls: listener.tls })
    return listener
  } catch (error) {
    const problem = listenError('--grpc-listen', wanted, error)
    if (grpcListen !== undefined) throw problem
    deps.log.warn('gRPC is not served', { why: adviceOf(problem) })
    return off
  }
}
