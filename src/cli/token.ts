import { readCredentials } from '../auth/credentials.ts'
import { execCredential, makeToken } from '../auth/token.ts'
import { addressOf } from './client.ts'
import type { CommandModule } from './command.ts'
import { connectionOf } from './connection.ts'
import { UsageError } from './failure.ts'
import { formatOf } from './options.ts'

export const command: CommandModule<{ readonly output?: string; readonly raw?: boolean }> = {
  define: (c) =>
    void c
      .option('-o, --output <format>', 'json, which it always is')
      .option('--raw', 'the token alone, for a header `authorization: Bearer …`'),
  run: async ({ options }, io) => {
    formatOf(options.output, ['json'])
    const connection = connectionOf(options, io)
    if (connection.as) throw new UsageError('a token is that of its key', 'give --as to kubectl')
    const credentials = readCredentials(connection.dataDir, io.env)
    const { token, expiresAt } = makeToken({ credentials, host: addressOf(connection), now: io.clock.now() })
    if (options.raw) {
      io.stdout.write(`${token}\n`)
      return 0
    }
    const credential = execCredential(token, expiresAt, io.env['KUBERNETES_EXEC_INFO'])
    io.stdout.write(`${JSON.stringify(credential)}\n`)
    return 0
  },
}
