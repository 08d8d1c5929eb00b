import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import type { KvEntry } from '../store/kv.ts'
import { type EntryReader, entryReader } from '../store/shown-event.ts'

/** So many versions are kept; then all are forgotten, and read anew. */
const most = 1_000

interface Known {
  readonly key: string
  stored?: KubeObject
  shown?: KubeObject
}

/**
 * What the processes of one world read, worked out once for all of them, as they see the same few objects again and
 * again. Frozen: one that changed what it was given would change it for all, and fails instead.
 */
export function sharedReads(): EntryReader {
  const known = knownVersions()
  const reader: EntryReader = {
    stored: <T extends KubeObject>(entry: KvEntry) => {
      const version = known(entry)
      version.stored ??= frozen(entryReader.stored(entry))
      return version.stored as T
    },
    shown: <T extends KubeObject>(kind: ResourceDefinition<T>, entry: KvEntry, given?: T) => {
      const version = known(entry)
      version.shown ??= frozen(entryReader.shown(kind, entry, given ?? reader.stored<T>(entry)))
      return version.shown as T
    },
  }
  return reader
}

/** A revision is that of one write, and so of one key. */
function knownVersions(): (entry: KvEntry) => Known {
  const versions = new Map<bigint, Known>()
  return ({ key, revision }) => {
    const found = versions.get(revision)
    if (found?.key === key) return found
    const version: Known = { key }
    if (versions.size >= most) versions.clear()
    versions.set(revision, version)
    return version
  }
}

function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const key in value) frozen(value[key])
  return value
}
