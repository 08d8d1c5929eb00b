import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import type { KvEntry } from '../store/kv.ts'
import { type EntryReader, entryReader } from '../store/shown-event.ts'

/** So many objects are kept; then all are forgotten, and read anew. */
const most = 1_000

/**
 * What the processes of one world read, worked out once for all of them, as they see the same few objects again and
 * again. Frozen: one that changed what it was given would change it for all, and fails instead.
 */
export function sharedReads(): EntryReader {
  const once = onceEach()
  const reader: EntryReader = {
    stored: <T extends KubeObject>(entry: KvEntry) =>
      once(entry, 'stored', () => entryReader.stored<T>(entry)),
    shown: <T extends KubeObject>(kind: ResourceDefinition<T>, entry: KvEntry, known?: T) =>
      once(entry, 'shown', () => entryReader.shown(kind, entry, known ?? reader.stored<T>(entry))),
  }
  return reader
}

function onceEach() {
  const known = new Map<string, KubeObject>()
  return <T extends KubeObject>({ key, revision }: KvEntry, how: keyof EntryReader, make: () => T): T => {
    const id = `${how} ${revision} ${key}`
    const found = known.get(id)
    if (found) return found as T
    const object = make()
    freeze(object)
    if (known.size >= most) known.clear()
    known.set(id, object)
    return object
  }
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return
  Object.freeze(value)
  for (const member of Object.values(value)) freeze(member)
}
