import { connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { UsageError } from './failure.ts'
import { kindOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { machineName } from './targets.ts'

export const command: CommandModule<{ readonly tail?: string; readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<name>', 'machine')
      .option('--tail <bytes>', 'only the last bytes')
      .option('-o, --output <format>', 'json'),
  run: async ({ args, options }, io) => {
    const name = machineName(args)
    if (options.tail !== undefined && !/^\d+$/.test(options.tail)) throw new UsageError('--tail takes bytes')
    const format = formatOf(options.output, ['json'])
    const client = connect(options, io)
    const path = `${pathOf(kindOf('vm'), namespaceOf(options, io), name)}/log`
    const query = { tailBytes: options.tail }
    const log = await client.text('GET', path, { query, accept: 'text/plain, */*' })
    io.stdout.write(format === 'json' ? `${JSON.stringify({ name, log })}\n` : log)
    client.close()
    return 0
  },
}
