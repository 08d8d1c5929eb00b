import { readCredentials } from '../auth/credentials.ts'
import { execCredential, makeToken } from '../auth/token.ts'
import { addressOf } from './client.ts'
import { isClusterId } from './cluster-id.ts'
import type { CommandModule } from './command.ts'
import { connectionOf } from './connection.ts'
import { UsageError } from './failure.ts'
import { durationMs, formatOf } from './options.ts'

interface TokenOptions {
  readonly output?: string
  readonly raw?: boolean
  readonly duration?: string
  readonly cluster?: string
}

export const command: CommandModule<TokenOptions> = {
  define: (c) =>
    void c
      .option('-o, --output <format>', 'json, which it always is')
      .option('--raw', 'the token alone, for a header `authorization: Bearer …`')
      .option('--duration <duration>', 'how long it is good, such as 12h, at most 168h; default 15m')
      .option('--cluster <id>', 'good there alone; the clusterId of /version'),
  run: async ({ options }, io) => {
    formatOf(options.output, ['json'])
    const connection = connectionOf(options, io)
    if (connection.as) throw new UsageError('a token is that of its key', 'give --as to kubectl')
    const expiresSeconds = Math.floor(durationMs(options.duration ?? '15m') / 1000)
    const { cluster: clusterId } = options
    if (clusterId !== undefined && !isClusterId(clusterId))
      throw new UsageError(
        `--cluster: "${clusterId}" is no cluster`,
        'see clusterId of plasmavmc version -o json',
      )
    const credentials = readCredentials(connection.dataDir, io.env)
    const { token, expiresAt } = makeToken({
      ...{ credentials, host: addressOf(connection), now: io.clock.now() },
      ...{ expiresSeconds, ...(clusterId !== undefined && { clusterId }) },
    })
    if (options.raw) {
      io.stdout.write(`${token}\n`)
      return 0
    }
    const credential = execCredential(token, expiresAt, io.env['KUBERNETES_EXEC_INFO'])
    io.stdout.write(`${JSON.stringify(credential)}\n`)
    return 0
  },
}
