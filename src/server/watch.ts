import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import type { KubeObject } from '../resources/define.ts'
import { apiVersionOf } from '../resources/define.ts'
import { toTable } from '../resources/table.ts'
import { ApiError } from '../store/errors.ts'
import { parseSelector } from '../store/labels.ts'
import type { ObjectStore, WatchEvent } from '../store/objects.ts'
import type { ResourcePath } from './path.ts'
import { type FieldTest, flag, numberOf, parameter } from './query.ts'
import { statusOf } from './status.ts'

export interface WatchRequest {
  readonly path: ResourcePath
  readonly query: URLSearchParams
  readonly table: boolean
  readonly matches: FieldTest
}

/** Longest watch; Kubernetes cuts after 30 to 60 minutes, too. */
const maxSeconds = 3_600
const bookmarkEveryMs = 60_000
const stalledMs = 30_000

export interface Watch {
  /** One JSON object a line, Kubernetes' streaming JSON. */
  readonly frames: AsyncIterable<string>
  /** Must be called when the client is gone: a generator that waits for an event can't notice by itself. */
  readonly stop: () => void
}

/** A watch until it times out or is stopped. @throws ApiError BadRequest for what a client got wrong in its query */
export function startWatch(request: WatchRequest, objects: ObjectStore, clock: Clock): Watch {
  const { query } = request
  const wanted = parameter(query, 'resourceVersion')
  if (wanted && !/^\d{1,18}$/.test(wanted))
    throw new ApiError('BadRequest', `resourceVersion: Invalid value: "${wanted}"`)
  parseSelector(parameter(query, 'labelSelector'))
  const seconds = Math.min(numberOf(query, 'timeoutSeconds') || maxSeconds, maxSeconds)
  const stopping = new AbortController()
  const cancel = clock.after(seconds * 1000, () => stopping.abort())
  const stop = () => {
    cancel()
    stopping.abort()
  }
  return { frames: frames(request, objects, clock, stopping.signal), stop }
}

/**
 * Writes a watch to its client until it ends. A client that takes nothing for 30 seconds is cut; until then the
 * store's bounded buffer holds what comes.
 */
export async function sendWatch({ frames, stop }: Watch, client: Writable, clock: Clock): Promise<void> {
  const gone = new AbortController()
  client.once('close', () => {
    gone.abort()
    stop()
  })
  if (client.destroyed) stop()
  try {
    for await (const text of frames) {
      if (gone.signal.aborted || client.write(text)) continue
      const cancel = clock.after(stalledMs, () => client.destroy())
      try {
        await once(client, 'drain', { signal: gone.signal })
      } finally {
        cancel()
      }
    }
    client.end()
  } catch {
    client.destroy()
  } finally {
    stop()
  }
}

function frame(type: string, object: unknown): string {
  return `${JSON.stringify({ type, object })}\n`
}

async function* frames(
  request: WatchRequest,
  objects: ObjectStore,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const { path, query, matches } = request
  const labelSelector = parameter(query, 'labelSelector')
  const scope = {
    ...(path.namespace !== undefined && { namespace: path.namespace }),
    ...(labelSelector !== undefined && { labelSelector }),
  }
  const show = (object: KubeObject) =>
    request.table ? toTable(path.kind, [object], { now: clock.now() }) : object
  const wanted = parameter(query, 'resourceVersion')
  let resourceVersion = wanted ?? '0'
  const known = new Set<string>()
  try {
    if (wanted === undefined || wanted === '' || wanted === '0') {
      const list = await objects.list(path.kind, scope)
      for (const object of list.items.filter(matches)) {
        if (parameter(query, 'sendInitialEvents') === 'false') break
        known.add(object.metadata.uid ?? '')
        yield frame('ADDED', show(object))
      }
      resourceVersion = list.resourceVersion
      if (flag(query, 'sendInitialEvents')) yield frame('BOOKMARK', bookmark(request, resourceVersion, true))
    }
    let lastMark = clock.elapsed()
    for await (const event of objects.watch(path.kind, { ...scope, resourceVersion, signal })) {
      const type = selected(event, matches, known)
      if (type !== undefined) yield frame(type, show(event.object))
      const due = flag(query, 'allowWatchBookmarks') && clock.elapsed() - lastMark >= bookmarkEveryMs
      if (!due) continue
      lastMark = clock.elapsed()
      yield frame(
        'BOOKMARK',
        bookmark(request, event.object.metadata.resourceVersion ?? resourceVersion, false),
      )
    }
  } catch (error) {
    if (!signal.aborted)
      yield frame(
        'ERROR',
        statusOf(error instanceof ApiError ? error : new ApiError('InternalError', 'the watch failed')).body,
      )
  }
}

/** The event's type under a field selector: leaving the selection is a deletion to this watcher. */
function selected(event: WatchEvent<KubeObject>, matches: FieldTest, known: Set<string>): string | undefined {
  const uid = event.object.metadata.uid ?? ''
  if (event.type !== 'DELETED' && matches(event.object)) {
    known.add(uid)
    return event.type
  }
  const was = known.delete(uid)
  if (event.type === 'DELETED') return matches(event.object) || was ? 'DELETED' : undefined
  return was ? 'DELETED' : undefined
}

function bookmark({ path }: WatchRequest, resourceVersion: string, initial: boolean): unknown {
  const annotations = initial ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}
  return {
    kind: path.kind.kind,
    apiVersion: apiVersionOf(path.kind),
    metadata: { resourceVersion, ...annotations },
  }
}
