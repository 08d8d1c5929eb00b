import { messageOf, PlasmaError } from '../lib/errors.ts'
import { adoptedFrom } from '../resources/adopted.ts'
import { connect } from './client.ts'
import type { CommandModule } from './command.ts'
import { UsageError } from './failure.ts'
import { kindOf, nameOf, pathOf } from './kinds.ts'
import type { Manifest } from './manifests.ts'
import { formatOf } from './options.ts'
import { listOrphans, type OrphanView } from './orphans.ts'
import { renderObject } from './output.ts'

function chosen(orphans: readonly OrphanView[], uid: string): OrphanView {
  const found = orphans.filter((o) => o.uid.startsWith(uid.toLowerCase()))
  if (found.length === 1 && found[0]) return found[0]
  const hint = "see 'plasmavmc orphans'"
  if (found.length > 1)
    throw new UsageError(`${found.length} orphans have a uid that starts with ${uid}`, hint)
  throw new PlasmaError('NotFound', `no orphan has the uid ${uid}`, { hint })
}

function manifestOf(orphan: OrphanView): Manifest {
  if (!orphan.manifest) {
    throw new PlasmaError('NotAdoptable', `QEMU ${orphan.pid} left no launch record to take its spec from`, {
      hint: `on ${orphan.host}, shut the guest down from inside, then declare the machine anew`,
    })
  }
  try {
    const { metadata, ...manifest } = JSON.parse(orphan.manifest) as Manifest
    const annotations = { ...metadata.annotations, [adoptedFrom]: orphan.host }
    return { ...manifest, metadata: { ...metadata, annotations } } as Manifest
  } catch (error) {
    throw new PlasmaError(
      'NotAdoptable',
      `the launch record of ${orphan.uid} is no JSON: ${messageOf(error)}`,
    )
  }
}

export const command: CommandModule<{ readonly output?: string }> = {
  define: (c) =>
    void c
      .argument('<uid>', "from 'plasmavmc orphans'; its beginning is enough")
      .option('-o, --output <format>', 'json, yaml or name'),
  run: async ({ args, options }, io) => {
    const format = formatOf(options.output, ['json', 'yaml', 'name'])
    const client = connect(options, io)
    const orphan = chosen(await listOrphans(client), args[0] ?? '')
    const manifest = manifestOf(orphan)
    const vm = kindOf('vm')
    const path = pathOf(vm, manifest.metadata.namespace ?? 'default')
    const query = { restoreUid: 'true', fieldManager: 'plasmavmc' }
    const object = await client.json('POST', path, { query, body: manifest })
    client.close()
    const name = nameOf(vm, manifest.metadata.name)
    if (format === 'json' || format === 'yaml') io.stdout.write(await renderObject(object, format))
    else
      io.stdout.write(
        format === 'name' ? `${name}\n` : `${name} adopted (QEMU ${orphan.pid} on ${orphan.host})\n`,
      )
    return 0
  },
}
