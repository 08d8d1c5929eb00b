import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import type { KubeObject } from '../resources/define.ts'
import { apiVersionOf } from '../resources/define.ts'
import { toTable } from '../resources/table.ts'
import { ApiError } from '../store/errors.ts'
import { parseSelector } from '../store/labels.ts'
import type { TextStore } from '../store/objects.ts'
import type { ResourcePath } from './path.ts'
import { flag, numberOf, parameter } from './query.ts'
import { statusOf } from './status.ts'

export interface WatchRequest {
  readonly path: ResourcePath
  readonly query: URLSearchParams
  readonly table: boolean
  /** What chooses objects besides labels; absent where nothing does. */
  readonly matches?: (object: KubeObject) => boolean
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
export function startWatch(request: WatchRequest, objects: TextStore, clock: Clock): Watch {
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
export async function sendWatch(
  { frames, stop }: Watch,
  client: Writable,
  clock: Clock,
  onCut: () => void = () => {},
): Promise<void> {
  const gone = new AbortController()
  client.once('close', () => {
    gone.abort()
    stop()
  })
  if (client.destroyed) stop()
  try {
    for await (const text of frames) {
      if (gone.signal.aborted || client.write(text)) continue
      const cancel = clock.after(stalledMs, () => {
        onCut()
        client.destroy()
      })
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
  objects: TextStore,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const { path, query, matches } = request
  const wanted = parameter(query, 'resourceVersion')
  let resourceVersion = wanted ?? '0'
  try {
    if (wanted === undefined || wanted === '' || wanted === '0') {
      const { texts, version } = await initial(request, objects, clock)
      resourceVersion = version
      if (parameter(query, 'sendInitialEvents') !== 'false') yield* texts
      if (flag(query, 'sendInitialEvents')) yield frame('BOOKMARK', bookmark(request, version, true))
    }
    let lastMark = clock.elapsed()
    const options = { ...scopeOf(request), ...(matches && { matches }), resourceVersion, signal }
    for await (const event of objects.watchText(path.kind, options)) {
      yield request.table
        ? frame(event.type, shown(request, event.object(), clock))
        : `{"type":"${event.type}","object":${event.text()}}\n`
      const due = flag(query, 'allowWatchBookmarks') && clock.elapsed() - lastMark >= bookmarkEveryMs
      if (!due) continue
      lastMark = clock.elapsed()
      yield frame('BOOKMARK', bookmark(request, event.resourceVersion, false))
    }
  } catch (error) {
    if (!signal.aborted)
      yield frame(
        'ERROR',
        statusOf(error instanceof ApiError ? error : new ApiError('InternalError', 'the watch failed')).body,
      )
  }
}

function scopeOf({ path, query }: WatchRequest) {
  const labelSelector = parameter(query, 'labelSelector')
  return {
    ...(path.namespace !== undefined && { namespace: path.namespace }),
    ...(labelSelector !== undefined && { labelSelector }),
  }
}

/** What is there when a watch begins that names no version. */
async function initial(request: WatchRequest, objects: TextStore, clock: Clock) {
  const { path, matches, table } = request
  if (!matches && !table) {
    const list = await objects.listText(path.kind, scopeOf(request))
    const texts = list.items.map((text) => `{"type":"ADDED","object":${text}}\n`)
    return { texts, version: list.resourceVersion }
  }
  const list = await objects.list(path.kind, scopeOf(request))
  const items = matches ? list.items.filter(matches) : list.items
  const texts = items.map((object) => frame('ADDED', shown(request, object, clock)))
  return { texts, version: list.resourceVersion }
}

function shown({ path, table }: WatchRequest, object: KubeObject, clock: Clock): unknown {
  return table ? toTable(path.kind, [object], { now: clock.now() }) : object
}

function bookmark({ path }: WatchRequest, resourceVersion: string, initial: boolean): unknown {
  const annotations = initial ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}
  return {
    kind: path.kind.kind,
    apiVersion: apiVersionOf(path.kind),
    metadata: { resourceVersion, ...annotations },
  }
}
