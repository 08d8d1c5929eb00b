import { type Clock, sleep } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import type { ResourceDefinition } from '../../resources/define.ts'
import { runController } from '../../runtime/controller.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import type { Kv } from '../../store/kv.ts'
import type { ObjectStore } from '../../store/objects.ts'
import { watchKin } from '../../store/ownership.ts'
import { Graph } from './graph.ts'
import { collect } from './index.ts'

export interface GarbageOptions {
  /** Where `objects` are kept. */
  readonly kv: Pick<Kv, 'list' | 'watch'>
  readonly objects: ObjectStore
  readonly kinds: readonly ResourceDefinition[]
  readonly clock: Clock
  readonly log: Log
}

const workers = 8
const passTimeoutMs = 60_000
/** How often everything is looked at again, whatever was heard. */
const resyncMs = 600_000

/**
 * Deletes objects whose owners are gone, and orders the deletions of owners that wait for them, until the signal is
 * aborted. One at a time in a cluster. Events own nothing and are owned by nobody here, as in Kubernetes.
 */
export async function runGarbage(options: GarbageOptions, signal: AbortSignal): Promise<void> {
  const { kv, objects, clock } = options
  const kinds = options.kinds.filter((kind) => kind.plural !== 'events')
  const log = options.log.child({ part: 'garbage' })
  const queue = new WorkQueue(clock)
  const add = (key: string) => queue.add(key)
  const graph = new Graph(kinds, add)
  const deps = { objects, kinds, graph, add, log }
  const stop = new AbortController()
  const either = AbortSignal.any([signal, stop.signal])
  const follow = async (kind: ResourceDefinition) => {
    for await (const event of watchKin(kv, kind, either, clock)) graph.hear(kind, event)
  }
  const parts = [
    runController(
      {
        ...{ name: 'garbage', queue, workers, passTimeoutMs, clock, log },
        reconcile: (key) => collect(key, deps),
      },
      either,
    ),
    ...kinds.map(follow),
  ]
  const resync = async () => {
    for (;;) {
      await sleep(clock, resyncMs, either)
      graph.lookAtAll()
    }
  }
  void resync().catch(() => {}) // It only ever ends by the signal.
  // Without one of them the others would work on half of what is there.
  await Promise.all(parts.map((part) => part.finally(() => stop.abort())))
}
