import { Readable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import type { KubeObject } from '../resources/define.ts'
import { apiVersionOf } from '../resources/define.ts'
import { toTable } from '../resources/table.ts'
import { ApiError } from '../store/errors.ts'
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

export interface WatchStream {
  /** One JSON object a line, Kubernetes' streaming JSON. */
  readonly frames: Readable
  /** Must be called when the client is gone: a generator that waits for an event can't notice by itself. */
  readonly stop: () => void
}

/** A watch until it times out or is stopped. */
export function watchStream(request: WatchRequest, objects: ObjectStore, clock: Clock): WatchStream {
  const stopping = new AbortController()
  const seconds = Math.min(numberOf(request.query, 'timeoutSeconds') ?? maxSeconds, maxSeconds)
  const cancel = clock.after(seconds * 1000, () => stopping.abort())
  const generator = frames(request, objects, clock, stopping.signal)
  const stream = Readable.from(generator, { objectMode: false, highWaterMark: 1 << 20 })
  const stop = () => {
    cancel()
    stopping.abort()
    stream.destroy()
  }
  stream.once('end', stop)
  return { frames: stream, stop }
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
  try {
    if (wanted === undefined || wanted === '' || wanted === '0') {
      const list = await objects.list(path.kind, scope)
      for (const object of list.items) if (matches(object)) yield frame('ADDED', show(object))
      resourceVersion = list.resourceVersion
      if (flag(query, 'sendInitialEvents')) yield frame('BOOKMARK', bookmark(request, resourceVersion, true))
    }
    const known = new Set<string>()
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
