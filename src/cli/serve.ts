import type { Command } from 'commander'
import type { Config } from '../config.ts'
import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import type { GlobalOptions, Io } from './io.ts'

export interface ServeOptions extends GlobalOptions {
  readonly runDir?: string
  readonly listen?: string
  readonly grpcListen?: string
  readonly metricsListen?: string
  readonly hostName?: string
  readonly store?: string
  readonly kubeconfig?: string
  readonly etcdEndpoints?: string
  readonly etcdPrefix?: string
  readonly etcdCa?: string
  readonly etcdCert?: string
  readonly etcdKey?: string
  readonly etcdUser?: string
  readonly etcdPasswordFile?: string
  readonly acceptStoreReset?: boolean
  readonly leaseDuration?: string
  readonly leaseRenew?: string
  readonly leaseDeadline?: string
  readonly peerListen?: string
  readonly peerAddress?: string
  readonly fencing?: string
  readonly watchdogDevice?: string
  readonly maxConnections?: string
  readonly maxRequestsInflight?: string
  readonly maxRequestsWaiting?: string
  readonly requestRate?: string
  readonly watchesPerUser?: string
  readonly consolesPerUser?: string
  readonly failedAttempts?: string
  readonly roles?: string
  readonly config?: string
  readonly logLevel?: string
  readonly accelerator?: string
  readonly qemu?: string
}

/** Declares the flags of a server; `--data-dir` is a global one. */
export function defineServeOptions(c: Command): void {
  c.option('--run-dir <dir>', 'sockets and launch records of machines')
    .option('--listen <host:port>', 'address of the API; default 127.0.0.1:7443')
    .option('--grpc-listen <host:port>', 'address of gRPC, or none; default 127.0.0.1:50051 if it is free')
    .option(
      '--metrics-listen <host:port>',
      '/metrics and health for whoever can connect, plain HTTP; none unless given',
    )
    .option('--host-name <name>', 'name of this Host; default the machine’s')
    .option('--store <kind>', 'lmdb (default), etcd, kubernetes or memory')
    .option('--kubeconfig <file>', 'for --store kubernetes; default the pod’s service account')
    .option('--etcd-endpoints <list>', 'host:port of the members of etcd, with commas between')
    .option('--etcd-prefix <path>', 'under which everything is kept in etcd; default /plasmavmc')
    .option('--etcd-ca <file>', 'PEM of the CAs that certify etcd')
    .option('--etcd-cert <file>', 'PEM of our certificate for etcd')
    .option('--etcd-key <file>', 'PEM of its key')
    .option('--etcd-user <name>', 'user of etcd')
    .option('--etcd-password-file <file>', 'file with that user’s password')
    .option('--accept-store-reset', 'this once: an etcd that was restored, or is another, counts as it is')
    .option('--lease-duration <seconds>', 'until a silent host’s lease may be taken; default 10')
    .option('--lease-renew <seconds>', 'between two renewals of a lease; default 3')
    .option('--lease-deadline <seconds>', 'until a host that is cut off stops machines; default 6')
    .option('--peer-listen <host:port>', 'UDP, where the guard answers other hosts; default 0.0.0.0:7444')
    .option('--peer-address <host:port>', 'where they reach it; default our address on the way to etcd')
    .option('--fencing <kind>', 'none, guard (default) or watchdog')
    .option('--watchdog-device <file>', 'for --fencing watchdog; default /dev/watchdog')
    .option('--max-connections <n>', 'connections of the API at once; default 5000')
    .option('--max-requests-inflight <n>', 'requests done at once; default 64')
    .option('--max-requests-waiting <n>', 'requests that wait for that; default 4096')
    .option('--request-rate <n>', 'requests a second of one user; default 2000')
    .option('--watches-per-user <n>', 'watches of one user; default 1000')
    .option('--consoles-per-user <n>', 'consoles and displays of one user; default 64')
    .option('--failed-attempts <n>', 'bad signatures in a row before one a second is looked at; default 20')
    .option('--roles <list>', 'some of api,controller,agent; default all')
    .option('--config <file>', 'YAML with these settings in camelCase')
    .option('--log-level <level>', 'debug, info (default), warn or error')
    .option('--accelerator <kind>', 'auto (default), kvm or tcg')
    .option('--qemu <file>', 'QEMU binary; default qemu-system-x86_64')
}

/** The configuration a command line asks for. @throws UsageError */
export async function serveConfig(options: ServeOptions, io: Pick<Io, 'env' | 'uid'>): Promise<Config> {
  const { loadConfig } = await import('../config.ts')
  try {
    return loadConfig(options, io.env, { uid: io.uid })
  } catch (error) {
    const { message, hint } = error as { message: string; hint?: string }
    throw new UsageError(message, hint)
  }
}

export const command: CommandModule<ServeOptions> = {
  define: defineServeOptions,
  run: async ({ options }, io) => {
    const config = await serveConfig(options, io)
    const { serve } = await import('../wire.ts')
    await serve(config, { signal: io.signal, stdout: io.stdout, stderr: io.stderr })
    return 0
  },
}
