import { type Clock, sleep } from '../lib/clock.ts'
import type { KubeObject, ObjectMeta, OwnerReference, ResourceDefinition } from '../resources/define.ts'
import { foregroundFinalizer, orphanFinalizer } from './deletion.ts'
import { ApiError } from './errors.ts'
import type { Kv } from './kv.ts'
import { prefixFor } from './object-keys.ts'
import type { Ref } from './objects.ts'

/** What garbage collection has to know of an object. */
export interface Kin {
  readonly ref: Ref
  readonly uid: string
  readonly owners: readonly OwnerReference[]
  /** It is being deleted, and goes after what it owns. */
  readonly foreground: boolean
  /** It is being deleted, and goes once what it owns no longer names it. */
  readonly orphaning: boolean
}

export type KinEvent =
  /** All of a kind that have an owner or wait for what they own; who is not among them has neither. */
  | { readonly type: 'SYNC'; readonly kin: readonly Kin[] }
  /** One that has or had one of these, or not any more. */
  | { readonly type: 'CHANGED'; readonly kin: Kin }
  | { readonly type: 'GONE'; readonly ref: Ref; readonly uid: string }

const retryBaseMs = 50
const retryCapMs = 10_000

/** Whether a stored text may tell of owners or of a deletion that waits for them; nearly none does. */
const mayTell = (text: string) =>
  text.includes('"ownerReferences":[') || text.includes(foregroundFinalizer) || text.includes(orphanFinalizer)

function kinOf(text: string): Kin {
  const { metadata } = JSON.parse(text) as KubeObject
  const { uid = '', ownerReferences: owners = [], finalizers = [], deletionTimestamp } = metadata
  const waits = (name: string) => deletionTimestamp !== undefined && finalizers.includes(name)
  return {
    ...{ ref: refOf(metadata), uid, owners },
    ...{ foreground: waits(foregroundFinalizer), orphaning: waits(orphanFinalizer) },
  }
}

function refOf({ name, namespace }: ObjectMeta): Ref {
  return { name, ...(namespace !== undefined && { namespace }) }
}

/** A function of its own: a generator that waits holds on to all that it has read. */
async function listKin(kv: Pick<Kv, 'list'>, prefix: string) {
  const { entries, revision } = await kv.list(prefix)
  return { kin: entries.filter(({ value }) => mayTell(value)).map(({ value }) => kinOf(value)), revision }
}

/**
 * Who owns whom among the objects of a kind, and which objects are gone, until the signal is aborted. It reads what is
 * stored without making objects of it: there may be many, and few have owners. Failures are retried with capped back-off.
 * @throws whatever is no ApiError
 */
export async function* watchKin(
  kv: Pick<Kv, 'list' | 'watch'>,
  kind: ResourceDefinition,
  signal: AbortSignal,
  clock: Clock,
): AsyncGenerator<KinEvent> {
  const prefix = prefixFor(kind)
  let failures = 0
  while (!signal.aborted) {
    const began = clock.elapsed()
    try {
      const { kin, revision } = await listKin(kv, prefix)
      yield { type: 'SYNC', kin }
      for await (const event of kv.watch(prefix, revision, signal)) {
        const { previous } = event
        if (event.type === 'delete') {
          const { ref, uid } = kinOf(event.previous.value)
          yield { type: 'GONE', ref, uid }
        } else if (mayTell(event.value) || (previous && mayTell(previous.value)))
          yield { type: 'CHANGED', kin: kinOf(event.value) }
      }
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) throw error
    }
    failures = clock.elapsed() - began > retryCapMs ? 0 : failures + 1
    await sleep(clock, Math.min(retryCapMs, retryBaseMs * 2 ** Math.min(failures, 10)), signal).catch(
      () => {},
    )
  }
}
