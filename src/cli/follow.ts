import { messageOf } from '../lib/errors.ts'
import type { Client, WatchFrame } from './client.ts'
import type { Io } from './io.ts'
import { type ClientKind, pathOf } from './kinds.ts'
import { isPassing, isTooOld, Patience } from './retry.ts'

/** Objects of one kind that a command is about. */
export interface Selection {
  readonly kind: ClientKind
  readonly names: readonly string[]
  /** Absent: all of them. */
  readonly namespace?: string
  readonly query: Readonly<Record<string, string | undefined>>
}

/** Where a frame stands in the history: of an object, or of the objects in a Table. */
function versionOf(object: unknown): string | undefined {
  const { metadata, rows } = object as {
    readonly metadata?: { readonly resourceVersion?: string }
    readonly rows?: readonly {
      readonly object?: { readonly metadata?: { readonly resourceVersion?: string } }
    }[]
  }
  return rows?.at(-1)?.object?.metadata?.resourceVersion ?? metadata?.resourceVersion
}

/**
 * Frames of a watch over a selection, bookmarks left out, until Ctrl-C. A watch that ends goes on where it was; what
 * breaks and comes back is told on stderr. @throws ServerError for what does not pass by itself
 */
export async function* follow<T>(
  client: Client,
  { kind, namespace, names, query }: Selection,
  resourceVersion: string | undefined,
  accept: string,
  io: Pick<Io, 'signal' | 'clock' | 'stderr'>,
): AsyncGenerator<WatchFrame<T>> {
  const fieldSelector = names.length === 1 ? `metadata.name=${names[0]}` : query['fieldSelector']
  const { signal } = io
  const patience = new Patience()
  let version = resourceVersion
  let broken = false
  const back = () => {
    patience.reset()
    if (broken) io.stderr.write('Note: the server answers again; going on\n')
    broken = false
  }
  while (!signal.aborted) {
    try {
      const wanted = { ...query, resourceVersion: version, fieldSelector }
      const path = pathOf(kind, namespace)
      for await (const frame of client.watch<T>(path, { query: wanted, accept, signal, onOpen: back })) {
        version = versionOf(frame.object) ?? version
        if (frame.type !== 'BOOKMARK') yield frame
      }
    } catch (error) {
      if (signal.aborted) return
      if (isTooOld(error)) {
        io.stderr.write('Note: the server no longer knows all that happened meanwhile; all is listed anew\n')
        version = undefined
      } else if (!isPassing(error)) throw error
      else if (!broken) {
        broken = true
        io.stderr.write(`Note: ${messageOf(error)}; trying again, Ctrl-C ends this\n`)
      }
    }
    // A server that ends each watch at once must not be asked without a pause, either.
    await patience.wait(io, signal).catch(() => {})
  }
}
