import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import { oneOf } from './options.ts'

interface Options {
  readonly only?: readonly string[]
  readonly output?: string
  readonly write?: boolean
  readonly keep?: boolean
}

export const command: CommandModule<Options> = {
  define: (c) =>
    void c
      .option('--only <what...>', 'one-host, cluster, or names of failure modes; all where absent')
      .option('--keep', 'keep the scratch folders')
      .option('--write', 'write the tables into docs/runbook.md of the checkout, where every row was played')
      .option('-o, --output <format>', 'table (default) or json'),
  examples: ['drill --only one-host', "drill --only 'host lost' 'network partition' -o json"],
  run: async ({ options }, io) => {
    const output = oneOf('--output', options.output ?? 'table', ['table', 'json'])
    const { choices, drill } = await import('../drill/run.ts')
    const unknown = options.only?.find((word) => !choices.includes(word))
    if (unknown !== undefined)
      throw new UsageError(
        `--only: no failure mode "${unknown}"`,
        `there are: ${choices.map((name) => `"${name}"`).join(', ')}`,
      )
    const { only = [], write = false, keep = false } = options
    return drill({ only, output, write, keep }, io)
  },
}
