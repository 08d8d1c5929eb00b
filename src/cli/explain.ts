import type { CommandModule } from './command.ts'

export const command: CommandModule<{ readonly recursive?: boolean; readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<path>', 'such as vm, vm.spec.disks')
      .option('-r, --recursive', 'all fields below, with their types')
      .option('-o, --output <format>', 'json'),
  run: async ({ args, options }, io) => {
    const { explain } = await import('../resources/explain.ts')
    io.stdout.write(explain(args[0] ?? '', { recursive: options.recursive === true }))
    return 0
  },
}
