import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import { connect } from './client.ts'
import type { CommandModule } from './command.ts'
import type { GlobalOptions, Io } from './io.ts'
import { formatOf } from './options.ts'
import { renderObject } from './output.ts'

/** The version of this program, from its package.json. */
export function ownVersion(root: string): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

async function serverVersion(options: GlobalOptions, io: Io): Promise<unknown> {
  const client = connect(options, io)
  try {
    return await client.json('GET', '/version', { timeoutMs: 5000 })
  } finally {
    client.close()
  }
}

export const command: CommandModule<{ readonly output?: string; readonly client?: boolean }> = {
  define: (c) =>
    void c.option('--client', 'only of this program').option('-o, --output <format>', 'json or yaml'),
  run: async ({ options }, io) => {
    const format = formatOf(options.output, ['json', 'yaml'])
    const clientVersion = { gitVersion: `v${ownVersion(io.root)}`, nodeVersion: process.version }
    let server: unknown
    let missing: PlasmaError | undefined
    if (!options.client) {
      try {
        server = await serverVersion(options, io)
      } catch (error) {
        missing = error instanceof PlasmaError ? error : new PlasmaError('NoServer', messageOf(error))
      }
    }
    const all = { clientVersion, ...(server ? { serverVersion: server } : {}) }
    if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(all, format))
    else {
      io.stdout.write(`Client Version: ${clientVersion.gitVersion}\n`)
      const { gitVersion } = (server ?? {}) as { gitVersion?: string }
      if (gitVersion) io.stdout.write(`Server Version: ${gitVersion}\n`)
      else if (missing) io.stderr.write(`Server Version: unknown (${missing.message})\n`)
    }
    return 0
  },
}
