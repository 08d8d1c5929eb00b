import type { CommandModule } from './command.ts'
import { eachHost, getHost, patchSpec } from './hosts.ts'

interface Options {
  readonly output?: string
}

/** `cordon`, or `uncordon`: whether machines are placed on a host. */
export function cordoning(on: boolean): CommandModule<Options> {
  const word = on ? 'cordoned' : 'uncordoned'
  return {
    define: (c) =>
      void c.argument('<host...>', 'hosts').option('-o, --output <format>', 'json, yaml or name'),
    examples: on ? ['cordon a', 'cordon a b'] : ['uncordon a'],
    run: eachHost(async (name, { client }) => {
      const host = await getHost(client, name)
      if ((host.spec?.unschedulable ?? false) === on) return { host, said: `already ${word}` }
      return { host: await patchSpec(client, name, { unschedulable: on }), said: word }
    }),
  }
}

export const command = cordoning(true)
