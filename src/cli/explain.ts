import type { CommandModule } from './command.ts'
import { formatOf } from './options.ts'

export const command: CommandModule<{ readonly recursive?: boolean; readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<path>', 'such as vm, vm.spec.disks')
      .option('-r, --recursive', 'all fields below, with their types')
      .option('-o, --output <format>', 'json: the text as a member'),
  examples: ['explain vm', 'explain vm.spec.disks', 'explain vm.spec -r'],
  run: async ({ args, options }, io) => {
    const format = formatOf(options.output, ['json'])
    const target = args[0] ?? ''
    const { explain } = await import('../resources/explain.ts')
    const text = explain(target, { recursive: options.recursive === true })
    io.stdout.write(format === 'json' ? `${JSON.stringify({ target, explanation: text })}\n` : text)
    return 0
  },
}
