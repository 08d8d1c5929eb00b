import type { Log } from '../../lib/log.ts'
import { Namespace } from '../../resources/kinds.ts'
import { runController } from '../../runtime/controller.ts'
import { Informer } from '../../runtime/informer.ts'
import { WorkQueue } from '../../runtime/queue.ts'
import { emptyNamespace, type NamespacesDeps } from './index.ts'

const workers = 2
const passTimeoutMs = 120_000
/** What is written down late of what was in a namespace is looked for so long after it has gone. */
const leftoverMs = 5_000

/** Empties namespaces that are being deleted, until the signal is aborted. One at a time in a cluster. */
export async function runNamespaces(
  deps: NamespacesDeps & { readonly log: Log },
  signal: AbortSignal,
): Promise<void> {
  const { objects, clock } = deps
  const log = deps.log.child({ part: 'namespaces' })
  const queue = new WorkQueue(clock)
  const namespaces = new Informer(objects, Namespace, log, clock)
  namespaces.onChange((name, namespace) => {
    if (!namespace) queue.addAfter(name, leftoverMs)
    else if (namespace.metadata.deletionTimestamp !== undefined) queue.add(name)
  })
  await Promise.all([
    namespaces.run(signal),
    runController(
      {
        ...{ name: 'namespaces', queue, workers, passTimeoutMs, clock, log },
        reconcile: (name) => emptyNamespace(name, deps),
      },
      signal,
    ),
  ])
}
