import type { CommandModule } from './command.ts'
import type { Io } from './io.ts'

interface DrillModule {
  drill(options: Readonly<Record<string, unknown>>, io: Io): Promise<number>
}

export const command: CommandModule = {
  define: (c) =>
    void c
      .argument('[name]', 'which failure; all where absent')
      .option('--list', 'name the drills')
      .option('-o, --output <format>', 'json'),
  run: async ({ args, options }, io) => {
    // Not a literal: drills need a running QEMU's worth of modules that no other command should pay for.
    const path = '../drill/run.ts'
    const { drill } = (await import(path)) as DrillModule
    return drill({ ...options, ...(args[0] === undefined ? {} : { name: args[0] }) }, io)
  },
}
