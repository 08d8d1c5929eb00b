import { Etcd3, type Watcher } from 'etcd3'

/** A write, as etcd has it: what it changed, and at which revision. */
export interface Change {
  readonly revision: number
  /** The object's, as in `/plasmavmc.io/virtualmachines/default/m1`. */
  readonly key: string
  /** Monotonic ms at which it was shown. */
  readonly at: number
}

const root = '/plasmavmc/registry'

/** Sees every write to a store in etcd, whoever makes it. */
export class Revisions {
  readonly #etcd: Etcd3
  readonly #watcher: Watcher
  readonly #changes: Change[] = []
  readonly #listeners = new Set<(change: Change) => void>()

  private constructor(etcd: Etcd3, watcher: Watcher) {
    this.#etcd = etcd
    this.#watcher = watcher
  }

  static async open(endpoints: readonly string[]): Promise<Revisions> {
    const etcd = new Etcd3({ hosts: [...endpoints] })
    const watcher = await etcd.watch().prefix(`${root}/`).create()
    const revisions = new Revisions(etcd, watcher)
    watcher.on('data', ({ events }) => {
      const at = performance.now()
      for (const { kv } of events) {
        const change = { revision: Number(kv.mod_revision), key: kv.key.toString().slice(root.length), at }
        revisions.#changes.push(change)
        for (const tell of revisions.#listeners) tell(change)
      }
    })
    return revisions
  }

  /** etcd's own count of all writes. */
  async now(): Promise<number> {
    const { header } = await this.#etcd.kv.range({ key: Buffer.from('/'), limit: 1, keys_only: true })
    return Number(header.revision)
  }

  /** Those after a revision, in order. */
  after(revision: number): readonly Change[] {
    return this.#changes.filter((change) => change.revision > revision)
  }

  /** @returns unsubscribe */
  onChange(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {
    // It would be made anew for ever otherwise.
    await this.#watcher.cancel()
    this.#etcd.close()
  }
}

export const isLease = ({ key }: Pick<Change, 'key'>): boolean =>
  key.startsWith('/coordination.k8s.io/leases/')
/** The write with which a leader begins. */
export const isTerm = ({ key }: Pick<Change, 'key'>): boolean => key === '/plasmavmc.io/term'
