import { connect } from './client.ts'
import { type CommandModule, namespaceOf } from './command.ts'
import { kindOf, nameOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { renderObject } from './output.ts'
import { machineName } from './targets.ts'

const said: Readonly<Record<string, string>> = {
  start: 'start requested',
  stop: 'stop requested',
  restart: 'restart requested',
  pause: 'pause requested',
  unpause: 'unpause requested',
  reset: 'reset requested',
}

/** The command of one imperative verb: a POST to the machine's subresource of that name. */
export function verbCommand(verb: string): CommandModule<{ readonly output?: string }> {
  return {
    define: (c) => void c.argument('<name>', 'machine').option('-o, --output <format>', 'json, yaml or name'),
    run: async ({ args, options }, io) => {
      const name = machineName(args)
      const format = formatOf(options.output, ['json', 'yaml', 'name'])
      const vm = kindOf('vm')
      const client = connect(options, io)
      const path = `${pathOf(vm, namespaceOf(options, io), name)}/${verb}`
      const answer = await client.json('POST', path, { body: {} })
      if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(answer, format))
      else io.stdout.write(`${nameOf(vm, name)}${format === 'name' ? '' : ` ${said[verb]}`}\n`)
      client.close()
      return 0
    },
  }
}
