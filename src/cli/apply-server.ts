import type { Client } from './client.ts'
import { UsageError } from './failure.ts'
import { kindOfManifest, pathOf } from './kinds.ts'
import type { Manifest } from './manifests.ts'
import { oneOf } from './options.ts'
import type { Applied, ApplySettings, Stored } from './prune.ts'

/** The flags of an apply that the server merges. */
export interface ServerSideOptions {
  readonly serverSide?: boolean
  readonly forceConflicts?: boolean
  readonly fieldManager?: string
  readonly prune?: boolean
  readonly dryRun?: string | boolean
}

/** @throws UsageError for flags that don't go together */
export function checkServerSide({ serverSide, forceConflicts, prune, dryRun }: ServerSideOptions): void {
  if (forceConflicts && !serverSide) throw new UsageError('--force-conflicts goes with --server-side only')
  if (!serverSide) return
  if (prune)
    throw new UsageError(
      '--prune goes without --server-side',
      'it goes by a note that only the other apply leaves',
    )
  if (dryRun !== undefined)
    oneOf('--dry-run with --server-side', dryRun === true ? 'client' : String(dryRun), ['none', 'server'])
}

/** Makes one manifest so by one request; the server merges, and refuses what another manager owns. @throws ServerError */
export async function applyOnServer(
  client: Client,
  manifest: Manifest,
  settings: ApplySettings,
  { forceConflicts = false, fieldManager = 'plasmavmc' }: ServerSideOptions,
): Promise<Applied> {
  const kind = kindOfManifest(manifest.apiVersion, manifest.kind)
  const namespace = manifest.metadata.namespace ?? settings.namespace
  const { status: _status, ...rest } = manifest
  const metadata = kind.namespaced ? { ...manifest.metadata, namespace } : manifest.metadata
  const object = await client.json<Stored>('PATCH', pathOf(kind, namespace, manifest.metadata.name), {
    query: {
      ...{ fieldManager, fieldValidation: settings.fieldValidation },
      dryRun: settings.dryRun === 'server' ? 'All' : undefined,
      force: forceConflicts ? 'true' : undefined,
    },
    contentType: 'application/apply-patch+yaml',
    body: { ...rest, metadata },
  })
  return { verb: 'serverside-applied', kind, object }
}
