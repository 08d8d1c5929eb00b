import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { withDefaults } from '../resources/parse.ts'
import type { KvEntry } from './kv.ts'
import { stored } from './object-text.ts'

/** What a text costs besides its characters: its key, its place in the map. Bytes, roughly. */
const overhead = 200
const defaultBytes = 64 * 1024 * 1024

interface Entry {
  readonly revision: bigint
  readonly text: string
}

/** JSON with defaults by key, good for one revision: long lists are joined, not made anew. Bounded by bytes. */
export class Rendered {
  readonly #maxBytes: number
  readonly #entries = new Map<string, Entry>()
  #bytes = 0

  constructor(maxBytes = defaultBytes) {
    this.#maxBytes = maxBytes
  }

  /** About what it holds. */
  get bytes(): number {
    return this.#bytes
  }

  /** What it has of a key at that revision. */
  known(key: string, revision: bigint): string | undefined {
    const known = this.#entries.get(key)
    return known?.revision === revision ? known.text : undefined
  }

  textOf(kind: ResourceDefinition, entry: KvEntry): string {
    const known = this.#entries.get(entry.key)
    if (known?.revision === entry.revision) return known.text
    const text = JSON.stringify(withDefaults(kind, stored<KubeObject>(entry)))
    // A page of the past must not drive out what is now.
    if (known === undefined || known.revision < entry.revision) this.#keep(entry.key, entry.revision, text)
    return text
  }

  /** Lets go of what is deleted. */
  forget(key: string): void {
    const known = this.#entries.get(key)
    if (!known) return
    this.#entries.delete(key)
    this.#bytes -= known.text.length + overhead
  }

  #keep(key: string, revision: bigint, text: string): void {
    this.forget(key)
    this.#entries.set(key, { revision, text })
    this.#bytes += text.length + overhead
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= this.#maxBytes) break
      this.forget(oldest)
    }
  }
}
