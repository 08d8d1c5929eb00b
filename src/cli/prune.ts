import type { Client } from './client.ts'
import { type ClientKind, clientKinds, nameOf, pathOf } from './kinds.ts'
import type { Manifest } from './manifests.ts'

/** Where the manifest as last applied is kept, the same as kubectl's. */
export const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'

export type Stored = Manifest & {
  readonly metadata: { readonly uid?: string; readonly resourceVersion?: string }
}

export interface Applied {
  readonly verb: 'created' | 'configured' | 'unchanged' | 'serverside-applied'
  readonly kind: ClientKind
  readonly object: Stored
}

export interface ApplySettings {
  readonly dryRun: 'none' | 'client' | 'server'
  readonly fieldValidation: 'Strict' | 'Warn' | 'Ignore'
  /** Where manifests that name no namespace go. */
  readonly namespace: string
}

/** Words behind a verb, as kubectl has them. */
export const dryRunNote = (dryRun: ApplySettings['dryRun']): string =>
  dryRun === 'none' ? '' : dryRun === 'server' ? ' (server dry run)' : ' (dry run)'

/** Kinds people declare; leases, events, hosts and namespaces are not pruned. */
const prunable = clientKinds.filter((k) => ['VirtualMachine', 'StoragePool'].includes(k.kind))

/** Deletes what matches the labels, was applied once and is not among `applied`, in the namespaces just applied to. */
export async function prune(
  client: Client,
  applied: readonly Applied[],
  labelSelector: string,
  settings: ApplySettings,
  say: (line: string) => unknown,
): Promise<void> {
  const keep = new Set(applied.map((a) => a.object.metadata.uid))
  const spaces = new Set(applied.map((a) => a.object.metadata.namespace ?? settings.namespace))
  for (const kind of prunable) {
    for (const namespace of kind.namespaced ? spaces : [undefined]) {
      const path = pathOf(kind, namespace)
      const list = await client.json<{ items: Manifest[] }>('GET', path, { query: { labelSelector } })
      for (const { metadata } of list.items) {
        const uid = metadata['uid'] as string | undefined
        if (keep.has(uid) || metadata.annotations?.[lastApplied] === undefined) continue
        if (settings.dryRun !== 'client') {
          await client.json('DELETE', pathOf(kind, namespace, metadata.name), {
            query: { dryRun: settings.dryRun === 'server' ? 'All' : undefined },
            // Only exactly the object that was looked at.
            body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid } },
          })
        }
        say(`${nameOf(kind, metadata.name)} pruned${dryRunNote(settings.dryRun)}\n`)
      }
    }
  }
}
