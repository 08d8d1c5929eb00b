import type { IEvent, IKeyValue } from './etcd-client.ts'
import { endOfPrefix } from './key-range.ts'
import type { KvEntry, KvEvent } from './kv.ts'

/**
 * Where things are in etcd: objects under `<prefix>/registry`, and under `<prefix>/writes/` what processes keep to know
 * of their writes.
 */
export class EtcdKeys {
  readonly #root: string
  readonly #writes: string

  constructor(prefix: string) {
    this.#root = `${prefix}/registry`
    this.#writes = `${prefix}/writes/`
  }

  /** Where all processes keep their slots. */
  get writes(): string {
    return this.#writes
  }

  of(key: string): Buffer {
    return Buffer.from(this.#root + key)
  }

  /** The smallest key after this one. */
  after(key: string): Buffer {
    return Buffer.from(`${this.#root}${key}\0`)
  }

  /** The smallest key after all that begin with `prefix`. */
  end(prefix: string): Buffer {
    return Buffer.from(endOfPrefix(this.#root + prefix))
  }

  entry({ key, value, mod_revision }: IKeyValue): KvEntry {
    return { key: this.#nameOf(key), value: value.toString(), revision: BigInt(mod_revision) }
  }

  /** The event, or undefined where what it replaced is not in etcd's history any more. */
  event({ type, kv, prev_kv }: IEvent): KvEvent | undefined {
    const { key, value, revision } = this.entry(kv)
    const previous = prev_kv && { value: prev_kv.value.toString(), revision: BigInt(prev_kv.mod_revision) }
    if (type === 'Delete') return previous && { type: 'delete', key, revision, previous }
    if (previous) return { type: 'put', key, value, revision, previous }
    // The first version of a key replaces nothing.
    return kv.version === '1' ? { type: 'put', key, value, revision } : undefined
  }

  #nameOf(key: Buffer): string {
    return key.toString().slice(this.#root.length)
  }
}

/** What one watch of etcd is about: all of a kind, `/group/plural/`, whichever part of it a reader wants. */
export function sharedPrefix(prefix: string): string {
  return /^\/[^/]+\/[^/]+\//.exec(prefix)?.[0] ?? prefix
}
