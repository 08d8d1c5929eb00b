import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import { oneOf } from './options.ts'

interface Options {
  readonly output?: string
  readonly write?: boolean
  readonly keep?: boolean
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .argument('[mode...]', 'failure modes to play; all where absent')
      .option('--no-write', 'leave the table in docs/runbook.md as it is')
      .option('--keep', 'keep the scratch folders')
      .option('-o, --output <format>', 'table (default) or json'),
  run: async ({ args, options }, io) => {
    const output = oneOf('--output', options.output ?? 'table', ['table', 'json'])
    const { drill } = await import('../drill/run.ts')
    const { scenarios } = await import('../drill/scenarios.ts')
    const modes = scenarios.map(({ name }) => name)
    const unknown = args.find((word) => !modes.includes(word))
    if (unknown !== undefined)
      throw new UsageError(
        `no failure mode "${unknown}"`,
        `there are: ${modes.map((name) => `"${name}"`).join(', ')}`,
      )
    const { write = true, keep = false } = options
    return drill({ only: args, output, write, keep }, io)
  },
}
