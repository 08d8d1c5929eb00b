import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Clock } from '../lib/clock.ts'
import { apiVersionOf, type KubeObject } from '../resources/define.ts'
import { ApiError } from '../store/errors.ts'
import type { WatchProgress } from '../store/kv.ts'
import { parseSelector } from '../store/labels.ts'
import type { TextStore } from '../store/objects.ts'
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

/** Takes a line of Kubernetes' streaming JSON. Where it can't take more at once: resolves when it can. */
export type Put = (text: string) => Promise<void> | undefined

export interface Watch {
  /** Puts one JSON object a line until the watch ends. Why the store ended it is the last of them. */
  readonly tell: (put: Put) => Promise<void>
  /** Must be called when the client is gone: who waits for an event can't notice by itself. */
  readonly stop: () => void
}

/**
 * A watch until it times out or is stopped.
 * @param onFailure told of what is no error of the API: its client hears no more than that the watch failed
 * @throws ApiError BadRequest, Invalid, NotAcceptable for what a client got wrong in its query
 */
export function startWatch(
  request: WatchRequest,
  objects: TextStore,
  clock: Clock,
  onFailure: (error: unknown) => void = () => {},
): Watch {
  const seconds = Math.min(numberOf(request.query, 'timeoutSeconds') || maxSeconds, maxSeconds)
  const wanted = wantedOf(request, clock, clock.elapsed() + seconds * 1000)
  const stopping = new AbortController()
  const cancel = clock.after(seconds * 1000, () => stopping.abort())
  const stop = () => {
    cancel()
    stopping.abort()
  }
  const own = { objects, clock, signal: stopping.signal, onFailure }
  return { tell: (put) => tell(wanted, own, put), stop }
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
  { tell, stop }: Watch,
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
  const drained = async () => {
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
  try {
    await tell((text) => (gone.signal.aborted || client.write(text) ? undefined : drained()))
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

interface Source {
  readonly objects: TextStore
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onFailure: (error: unknown) => void
}

/** @throws what `put` throws */
async function tell(wanted: Wanted, source: Source, put: Put): Promise<void> {
  const failed = (error: unknown) => {
    if (error instanceof ApiError) return error
    source.onFailure(error)
    return new ApiError('InternalError', 'the watch failed')
  }
  let lost = false
  const told: Put = (text) => {
    const wait = put(text)
    return wait?.catch((error: unknown) => {
      lost = true
      throw error
    })
  }
  try {
    await changes(wanted, await begun(wanted, source, told), source, told)
  } catch (error) {
    if (lost) throw error
    if (!source.signal.aborted) await put(frame('ERROR', statusOf(failed(error)).body))
  }
}

/** Puts what is there at the beginning, where that is wanted. @returns the version from which changes are told */
async function begun(wanted: Wanted, { objects }: Source, put: Put): Promise<string> {
  const { resourceVersion, sendInitialEvents, bookmarks } = wanted
  if (sendInitialEvents ?? isAny(resourceVersion)) {
    const { texts, version } = await initial(wanted, objects)
    refuseOlder(version, resourceVersion)
    for (const text of texts) {
      const wait = put(text)
      if (wait) await wait
    }
    if (sendInitialEvents && bookmarks) await put(frame('BOOKMARK', bookmark(wanted, version, true)))
    return version
  }
  if (!isAny(resourceVersion)) return resourceVersion
  return (await objects.listText(wanted.path.kind, { ...scopeOf(wanted), limit: 1 })).resourceVersion
}

/** Events as they come, and bookmarks every minute, whether events come or not, where they are wanted. */
async function changes(wanted: Wanted, from: string, source: Source, put: Put): Promise<void> {
  const { objects, signal } = source
  const { path, matches, bookmarks, view } = wanted
  const progress: WatchProgress = {}
  const options = { ...scopeOf(wanted), ...(matches && { matches }), resourceVersion: from, signal, progress }
  const marks = bookmarks ? marking(wanted, from, { ...source, progress, put }) : undefined
  try {
    for await (const event of objects.watchText(path.kind, options)) {
      const text =
        view.form === 'json'
          ? `{"type":"${event.type}","object":${event.text()}}\n`
          : frame(event.type, shownOne(view, event.object()))
      const wait = put(text)
      if (wait) await wait
      marks?.passed(event.resourceVersion)
    }
  } finally {
    marks?.end()
  }
}

/**
 * Puts the bookmarks of a watch: when one is due, with how far the watch is where nothing is under way, or with the
 * event that is.
 */
function marking(
  wanted: Wanted,
  from: string,
  { clock, progress, put }: Pick<Source, 'clock'> & { readonly progress: WatchProgress; readonly put: Put },
): { readonly passed: (version: string) => void; readonly end: () => void } {
  let [marked, dueAt] = [from, nextMark(wanted, clock)]
  let cancel = () => {}
  const wait = (until: number) => {
    cancel()
    dueAt = until
    if (dueAt !== Number.POSITIVE_INFINITY)
      cancel = clock.after(Math.max(0, dueAt - clock.elapsed()), () => mark(progress.upTo?.()?.toString()))
  }
  const mark = (version: string | undefined) => {
    // Who can't be told is noticed by who tells the events.
    if (version !== undefined && version !== marked)
      put(frame('BOOKMARK', bookmark(wanted, version, false)))?.catch(() => {})
    marked = version ?? marked
    wait(version === undefined ? clock.elapsed() + bookmarkAgainMs : nextMark(wanted, clock))
  }
  wait(dueAt)
  return { passed: (version) => dueAt <= clock.elapsed() && mark(version), end: () => cancel() }
}

/** Monotonic ms of the next bookmark: a minute from now, or right before the end. */
function nextMark({ endsAt }: Wanted, clock: Clock): number {
  const now = clock.elapsed()
  const last = endsAt - lastBookmarkMs
  return last > now ? Math.min(now + bookmarkEveryMs, last) : Number.POSITIVE_INFINITY
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
