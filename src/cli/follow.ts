import type { Client, WatchFrame } from './client.ts'
import type { Io } from './io.ts'
import { type ClientKind, pathOf } from './kinds.ts'

/** Objects of one kind that a command is about. */
export interface Selection {
  readonly kind: ClientKind
  readonly names: readonly string[]
  /** Absent: all of them. */
  readonly namespace?: string
  readonly query: Readonly<Record<string, string | undefined>>
}

/** Frames of a watch over a selection, bookmarks left out; ends when the server ends it or on Ctrl-C. */
export async function* follow<T>(
  client: Client,
  { kind, namespace, names, query }: Selection,
  resourceVersion: string | undefined,
  accept: string,
  io: Pick<Io, 'signal'>,
): AsyncGenerator<WatchFrame<T>> {
  const fieldSelector = names.length === 1 ? `metadata.name=${names[0]}` : query['fieldSelector']
  const wanted = { ...query, resourceVersion, fieldSelector }
  try {
    for await (const frame of client.watch<T>(pathOf(kind, namespace), {
      query: wanted,
      accept,
      signal: io.signal,
    })) {
      if (frame.type !== 'BOOKMARK') yield frame
    }
  } catch (error) {
    if (!io.signal.aborted) throw error
  }
}
