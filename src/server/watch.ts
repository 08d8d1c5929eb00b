import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject } from '../resources/define.ts'
import { ApiError } from '../store/errors.ts'
import type { WatchProgress } from '../store/kv.ts'
import { parseSelector } from '../store/labels.ts'
import type { TextEvent, TextStore } from '../store/objects.ts'
import type { Form } from './accept.ts'
import { parseFieldSelector } from './field-selector.ts'
import type { ResourcePath } from './path.ts'
import { flag, numberOf, parameter } from './query.ts'
import { isAny, refuseOlder, type VersionWish, versionWish } from './read-options.ts'
import { refuseListForm, shownList, shownOne, type View, viewOf } from './show.ts'
import { statusOf } from './status.ts'

export interface WatchRequest {
  readonly path: ResourcePath
  readonly query: URLSearchParams
  readonly form: Form
}

/** The same, understood. */
interface Wanted extends VersionWish {
  readonly path: ResourcePath
  readonly labelSelector: string | undefined
  /** What chooses objects besides labels; absent where nothing does. */
  readonly matches?: (object: KubeObject) => boolean
  readonly bookmarks: boolean
  readonly view: View
  /** Monotonic ms at which it ends. */
  readonly endsAt: number
}

/** Longest watch; Kubernetes cuts after 30 to 60 minutes, too. */
const maxSeconds = 3_600
const bookmarkEveryMs = 60_000
/** The last bookmark comes so long before the end, for the client to go on from there. */
const lastBookmarkMs = 2_000
/** When a bookmark is due and events are under way, it is looked again after this. */
const bookmarkAgainMs = 1_000
const stalledMs = 30_000

export interface Watch {
  /** One JSON object a line, Kubernetes' streaming JSON. */
  readonly frames: AsyncIterable<string>
  /** Must be called when the client is gone: a generator that waits for an event can't notice by itself. */
  readonly stop: () => void
}

/**
 * A watch until it times out or is stopped.
 * @throws ApiError BadRequest, Invalid, NotAcceptable for what a client got wrong in its query
 */
export function startWatch(request: WatchRequest, objects: TextStore, clock: Clock): Watch {
  const seconds = Math.min(numberOf(request.query, 'timeoutSeconds') || maxSeconds, maxSeconds)
  const wanted = wantedOf(request, clock, clock.elapsed() + seconds * 1000)
  const stopping = new AbortController()
  const cancel = clock.after(seconds * 1000, () => stopping.abort())
  const stop = () => {
    cancel()
    stopping.abort()
  }
  return { frames: frames(wanted, objects, clock, stopping.signal), stop }
}

function wantedOf({ path, query, form }: WatchRequest, clock: Clock, endsAt: number): Wanted {
  const { kind, name } = path
  const labelSelector = parameter(query, 'labelSelector')
  parseSelector(labelSelector)
  const fields = parseFieldSelector(parameter(query, 'fieldSelector'), kind)
  const named = ({ metadata }: KubeObject) => name === undefined || metadata.name === name
  const matches = (object: KubeObject) => named(object) && (!fields || fields.matches(object))
  // What is watched is one object after the other.
  refuseListForm({ kind, form })
  return {
    ...{ ...versionWish(query, true), path, labelSelector, endsAt },
    ...((fields || name !== undefined) && { matches }),
    bookmarks: flag(query, 'allowWatchBookmarks'),
    view: viewOf({ kind, form }, query, () => clock.now()),
  }
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
  wanted: Wanted,
  objects: TextStore,
  clock: Clock,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const { resourceVersion, sendInitialEvents, bookmarks } = wanted
  let from = resourceVersion
  try {
    if (sendInitialEvents ?? isAny(resourceVersion)) {
      const { texts, version } = await initial(wanted, objects)
      refuseOlder(version, resourceVersion)
      yield* texts
      from = version
      if (sendInitialEvents && bookmarks) yield frame('BOOKMARK', bookmark(wanted, version, true))
    } else if (isAny(resourceVersion)) {
      from = (await objects.listText(wanted.path.kind, { ...scopeOf(wanted), limit: 1 })).resourceVersion
    }
    yield* changes(wanted, from, { objects, clock, signal })
  } catch (error) {
    if (!signal.aborted)
      yield frame(
        'ERROR',
        statusOf(error instanceof ApiError ? error : new ApiError('InternalError', 'the watch failed')).body,
      )
  }
}

/** Events as they come, and bookmarks every minute, whether events come or not, where they are wanted. */
async function* changes(
  wanted: Wanted,
  from: string,
  {
    objects,
    clock,
    signal,
  }: { readonly objects: TextStore; readonly clock: Clock; readonly signal: AbortSignal },
): AsyncGenerator<string> {
  const { path, matches, bookmarks, view } = wanted
  const progress: WatchProgress = {}
  const options = { ...scopeOf(wanted), ...(matches && { matches }), resourceVersion: from, signal, progress }
  const events = objects.watchText(path.kind, options)[Symbol.asyncIterator]()
  let marked = from
  let markAt = bookmarks ? nextMark(wanted, clock) : Number.POSITIVE_INFINITY
  try {
    for (let coming = events.next(); ; ) {
      coming.catch(() => {}) // It is nobody's where the reader goes away meanwhile.
      const event: IteratorResult<TextEvent> | 'late' = await orAfter(coming, markAt - clock.elapsed(), clock)
      if (event === 'late') {
        const upTo = progress.upTo?.()?.toString()
        if (upTo !== undefined && upTo !== marked) yield frame('BOOKMARK', bookmark(wanted, upTo, false))
        marked = upTo ?? marked
        markAt = upTo === undefined ? clock.elapsed() + bookmarkAgainMs : nextMark(wanted, clock)
        continue
      }
      if (event.done) return
      const { type, resourceVersion } = event.value
      yield view.form === 'json'
        ? `{"type":"${type}","object":${event.value.text()}}\n`
        : frame(type, shownOne(view, event.value.object()))
      if (markAt <= clock.elapsed()) {
        yield frame('BOOKMARK', bookmark(wanted, resourceVersion, false))
        marked = resourceVersion
        markAt = nextMark(wanted, clock)
      }
      coming = events.next()
    }
  } finally {
    // Not awaited: it may wait for its next event until the watch is stopped.
    void events.return?.()
  }
}

/** Monotonic ms of the next bookmark: a minute from now, or right before the end. */
function nextMark({ endsAt }: Wanted, clock: Clock): number {
  const now = clock.elapsed()
  const last = endsAt - lastBookmarkMs
  return last > now ? Math.min(now + bookmarkEveryMs, last) : Number.POSITIVE_INFINITY
}

/** What comes, or that it did not within `ms`; for ever where that is infinite. */
async function orAfter<T>(work: Promise<T>, ms: number, clock: Clock): Promise<T | 'late'> {
  if (ms === Number.POSITIVE_INFINITY) return work
  let cancel = () => {}
  const late = new Promise<'late'>((resolve) => {
    cancel = clock.after(Math.max(0, ms), () => resolve('late'))
  })
  try {
    return await Promise.race([work, late])
  } finally {
    cancel()
  }
}

function scopeOf({ path, labelSelector }: Wanted) {
  return {
    ...(path.namespace !== undefined && { namespace: path.namespace }),
    ...(labelSelector !== undefined && { labelSelector }),
  }
}

/** What is there when a watch begins. */
async function initial(wanted: Wanted, objects: TextStore) {
  const { path, matches, view } = wanted
  if (!matches && view.form === 'json') {
    const list = await objects.listText(path.kind, scopeOf(wanted))
    const texts = list.items.map((text) => `{"type":"ADDED","object":${text}}\n`)
    return { texts, version: list.resourceVersion }
  }
  const list = await objects.list(path.kind, scopeOf(wanted))
  const items = matches ? list.items.filter(matches) : list.items
  return {
    texts: items.map((object) => frame('ADDED', shownOne(view, object))),
    version: list.resourceVersion,
  }
}

function bookmark({ view, path }: Wanted, resourceVersion: string, initial: boolean): unknown {
  const annotations = initial ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}
  const metadata = { resourceVersion, ...annotations }
  if (view.form === 'table') return shownList(view, { items: [], resourceVersion })
  if (view.form !== 'json') return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata }
  return { kind: path.kind.kind, apiVersion: apiVersionOf(path.kind), metadata }
}
