import { runOrphanSecrets } from './auth/orphan-secrets.ts'
import { runGarbage } from './controllers/garbage/start.ts'
import { runNamespaces } from './controllers/namespaces/start.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import type { Log } from './lib/log.ts'
import { kinds } from './resources/kinds.ts'
import type { Kv } from './store/kv.ts'
import type { ObjectStore } from './store/objects.ts'

export interface TidyOptions {
  /** Where `objects` are kept. */
  readonly kv: Pick<Kv, 'list' | 'watch' | 'put' | 'delete'>
  readonly objects: ObjectStore
  readonly log: Log
  readonly clock?: Clock
}

/**
 * What Kubernetes' controller manager does for its API: garbage collection by owner references, the deletion of
 * namespaces, and here the end of secrets whose access keys are not there. One server does it at a time: the only one of an
 * embedded store, the leader of a cluster.
 */
export async function runTidy(options: TidyOptions, signal: AbortSignal): Promise<void> {
  const deps = { clock: systemClock, ...options, kinds }
  const stop = new AbortController()
  const either = AbortSignal.any([signal, stop.signal])
  const parts = [runGarbage, runNamespaces, runOrphanSecrets].map((run) => run(deps, either))
  await Promise.all(parts.map((part) => part.finally(() => stop.abort())))
}
