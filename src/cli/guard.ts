import type { CommandModule } from './command.ts'
import { defineServeOptions, type ServeOptions, serveConfig } from './serve.ts'

interface GuardOptions extends ServeOptions {
  readonly replace?: boolean
  readonly wait?: boolean
}

export const command: CommandModule<GuardOptions> = {
  define: (c) => {
    defineServeOptions(c)
    c.option('--replace', 'take the place of the guard that runs').option(
      '--wait',
      'wait while another guard runs; one that a server started, told the same, is replaced',
    )
  },
  run: async ({ options }, io) => {
    const config = await serveConfig(options, io)
    const { runGuard } = await import('../wire-guard.ts')
    const { replace = false, wait = false } = options
    await runGuard(config, { signal: io.signal, stdout: io.stdout, replace, wait })
    return 0
  },
}
