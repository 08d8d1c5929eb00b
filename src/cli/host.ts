import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import { type FenceOptions, fence } from './host-fence.ts'
import { hostName } from './hosts.ts'
import { similarTo } from './similar.ts'

export const command: CommandModule<FenceOptions> = {
  define: (c) =>
    void c
      .argument('<action>', 'fence')
      .argument('<host>', 'host')
      .option('--confirm-off', 'you made sure that the host is off')
      .option('--reason <text>', 'how, for those who look at it later')
      .option('--timeout <duration>', 'longest wait for its machines, such as 10m; default 5m')
      .option('-o, --output <format>', 'json or yaml: the evidence'),
  examples: ["host fence a --confirm-off --reason 'pulled its plug'"],
  run: async ({ args: [action = '', ...rest], options }, io) => {
    if (action === 'fence') return fence(hostName(rest), options, io)
    const similar = similarTo(action, ['fence'])
    throw new UsageError(
      `host ${action}: no such action`,
      similar ? `did you mean ${similar}?` : 'there is: fence',
    )
  },
}
