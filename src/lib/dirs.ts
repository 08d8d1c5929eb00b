import { homedir } from 'node:os'
import { join } from 'node:path'

type Env = Readonly<Record<string, string | undefined>>

/** Where data is kept unless told otherwise: /var/lib/plasmavmc for root, the XDG data home for others. */
export function defaultDataDir(env: Env, uid: number): string {
  if (uid === 0) return '/var/lib/plasmavmc'
  return join(env['XDG_DATA_HOME'] || join(env['HOME'] || homedir(), '.local', 'share'), 'plasmavmc')
}

/** Where sockets and pids lie unless told otherwise: /run/plasmavmc for root, the XDG runtime folder for others. */
export function defaultRunDir(env: Env, uid: number): string {
  if (uid === 0) return '/run/plasmavmc'
  return join(env['XDG_RUNTIME_DIR'] || `/tmp/plasmavmc-${uid}`, 'plasmavmc')
}

/** Where the API listens unless told otherwise: `host:port`. */
export const defaultAddress = '127.0.0.1:7443'

/** Where gRPC is served unless told otherwise: `host:port`. */
export const defaultGrpcAddress = { host: '127.0.0.1', port: 50051 } as const
