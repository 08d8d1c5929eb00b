import { type Clock, sleep, systemClock } from '../lib/clock.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { ApiError } from './errors.ts'
import type { ListOptions, ObjectStore, WatchEvent } from './objects.ts'

/** What there was at a time, for one reader: who waits for what comes next would else hold on to all of it. */
export class Listed<T> {
  readonly type = 'SYNC'
  readonly resourceVersion: string
  #objects: readonly T[]

  constructor(objects: readonly T[], resourceVersion: string) {
    this.#objects = objects
    this.resourceVersion = resourceVersion
  }

  /** The objects, once; nothing after that. */
  take(): readonly T[] {
    const objects = this.#objects
    this.#objects = []
    return objects
  }
}

/** What a list and a watch both heed: by any other option they would be of different objects. */
export type WatchScope = Pick<ListOptions, 'namespace' | 'labelSelector'>

export type ListWatchEvent<T> = Listed<T> | WatchEvent<T>

const retryBaseMs = 50
const retryCapMs = 10_000
const retryable: ReadonlySet<string> = new Set([
  'Gone',
  'Expired',
  'ServiceUnavailable',
  'Timeout',
  'TooManyRequests',
  'InternalError',
])

/** Who was let in before is so again: credentials are renewed, and a server that starts may know nobody yet. */
const passing: ReadonlySet<string> = new Set(['Unauthorized', 'Forbidden'])

/**
 * Every object of a kind, then every change, for ever: a SYNC with the whole list first and whenever the watch could
 * not be continued. Store failures are retried with capped back-off. Ends quietly when the signal is aborted.
 * @throws whatever is no ApiError, or is one that trying again can't mend
 */
export async function* listAndWatch<T extends KubeObject>(
  store: ObjectStore,
  kind: ResourceDefinition<T>,
  scope: WatchScope,
  signal: AbortSignal,
  clock: Clock = systemClock,
): AsyncGenerator<ListWatchEvent<T>> {
  let failures = 0
  let admitted = false
  while (!signal.aborted) {
    const began = clock.elapsed()
    try {
      const list = await listed(store, kind, scope)
      const { resourceVersion } = list
      admitted = true
      yield list
      for await (const event of store.watch(kind, { ...scope, resourceVersion, signal })) {
        failures = 0
        yield event
      }
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof ApiError)) throw error
      if (!retryable.has(error.reason) && !(admitted && passing.has(error.reason))) throw error
      failures += 1
    }
    if (signal.aborted) return
    // A list alone is no success: a watch that fails at once would be made anew, with a whole list, for ever.
    if (clock.elapsed() - began > retryCapMs) failures = 0
    const delay = Math.min(retryCapMs, retryBaseMs * 2 ** Math.min(failures, 10))
    await sleep(clock, delay, signal).catch(() => {})
  }
}

async function listed<T extends KubeObject>(
  store: ObjectStore,
  kind: ResourceDefinition<T>,
  scope: WatchScope,
): Promise<Listed<T>> {
  const { items, resourceVersion } = await store.list(kind, scope)
  return new Listed(items, resourceVersion)
}
