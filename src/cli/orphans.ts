import { type Client, connect } from './client.ts'
import type { CommandModule } from './command.ts'
import { kindOf, pathOf } from './kinds.ts'
import { formatOf } from './options.ts'
import { age, renderObject, renderTable } from './output.ts'
import type { ListView, ObjectView } from './targets.ts'

/** A QEMU with our mark that no resource declares, as its host's status lists it. */
export interface OrphanView {
  readonly host: string
  readonly uid: string
  readonly pid: number
  readonly name: string
  readonly startedAt?: string
  readonly manifest?: string
}

/** The orphans of all hosts. */
export async function listOrphans(client: Client): Promise<readonly OrphanView[]> {
  const hosts = await client.json<ListView>('GET', pathOf(kindOf('hosts')))
  return hosts.items.flatMap((host: ObjectView) => {
    const orphans = (host.status?.['orphans'] ?? []) as readonly Omit<OrphanView, 'host'>[]
    return orphans.map((orphan) => ({ ...orphan, host: host.metadata.name }))
  })
}

export const command: CommandModule<{ readonly output?: string }> = {
  define: (c) => void c.option('-o, --output <format>', 'json, yaml or name'),
  run: async ({ options }, io) => {
    const format = formatOf(options.output, ['json', 'yaml', 'name'])
    const client = connect(options, io)
    const orphans = await listOrphans(client)
    client.close()
    if (format === 'json' || format === 'yaml')
      io.stdout.write(await renderObject({ items: orphans }, format))
    else if (format === 'name') for (const o of orphans) io.stdout.write(`${o.uid}\n`)
    else if (orphans.length === 0) io.stderr.write('No orphans: every QEMU of ours has its resource.\n')
    else {
      const rows = orphans.map((o) => [
        o.uid,
        o.host,
        o.pid,
        o.name,
        o.startedAt ? `${age(io.clock.now() - Date.parse(o.startedAt))} ago` : undefined,
        o.manifest ? 'yes' : 'no: no launch record',
      ])
      const columns = ['UID', 'Host', 'PID', 'Name', 'Launched', 'Adoptable']
      io.stdout.write(renderTable({ columns, rows }, { out: io.stdout, env: io.env }).text)
    }
    return 0
  },
}
