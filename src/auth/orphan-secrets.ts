import { type Clock, sleep } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { AccessKey } from '../resources/access-key.ts'
import type { Kv, KvEntry } from '../store/kv.ts'
import type { ObjectStore } from '../store/objects.ts'
import { secretsPrefix } from './key-secrets.ts'

/** How often it is looked for them. A secret is forgotten that had no key at two looks, ms. */
export const orphansEveryMs = 300_000

export interface OrphanSecretsOptions {
  /** Where `objects` are kept. */
  readonly kv: Pick<Kv, 'list' | 'put' | 'delete'>
  readonly objects: Pick<ObjectStore, 'list'>
  readonly clock: Clock
  readonly log: Log
}

/**
 * Forgets secrets whose key is not there: left over where a server ended between the writes of the two. Runs until the
 * signal is aborted; failures of the store wait for the next look. Several servers may do it at once.
 */
export async function runOrphanSecrets(options: OrphanSecretsOptions, signal: AbortSignal): Promise<void> {
  const { clock, log } = options
  let suspects: ReadonlySet<string> = new Set()
  while (!signal.aborted) {
    try {
      suspects = await forgetOrphans(options, suspects)
    } catch (error) {
      // What could not be read is not taken for absent.
      log.warn('secrets without an access key were not looked for', { message: messageOf(error) })
    }
    await sleep(clock, orphansEveryMs, signal).catch(() => {})
  }
}

/**
 * One look. A key is made only while its secret has the revision that it was kept with (`GuardedObjects`). So a secret is
 * written anew first, which ends every making of its key that is still under way, then it is looked whether the key is
 * there, and only then is it deleted, where nobody touched it since.
 * @param suspects keys of the store that were orphans at the look before
 * @returns those that are now
 */
export async function forgetOrphans(
  { kv, objects, log }: OrphanSecretsOptions,
  suspects: ReadonlySet<string>,
): Promise<ReadonlySet<string>> {
  const { entries } = await kv.list(secretsPrefix)
  const alone = await withoutKey(entries, objects)
  const fenced: KvEntry[] = []
  for (const entry of alone.filter(({ key }) => suspects.has(key))) {
    const revision = await kv.put(entry.key, entry.value, entry.revision)
    if (revision !== undefined) fenced.push({ ...entry, revision })
  }
  let forgotten = 0
  for (const { key, revision } of fenced.length > 0 ? await withoutKey(fenced, objects) : [])
    if ((await kv.delete(key, revision)) !== undefined) forgotten += 1
  if (forgotten > 0) log.info('secrets without an access key are forgotten', { secrets: forgotten })
  return new Set(alone.map(({ key }) => key))
}

/** Those whose key is not there for certain: as of a moment after they were read, or written. */
async function withoutKey(
  entries: readonly KvEntry[],
  objects: Pick<ObjectStore, 'list'>,
): Promise<readonly KvEntry[]> {
  const { items, resourceVersion } = await objects.list(AccessKey)
  const asOf = BigInt(resourceVersion)
  const uids = new Set(items.map(({ metadata }) => secretsPrefix + metadata.uid))
  return entries.filter(({ key, revision }) => revision <= asOf && !uids.has(key))
}
