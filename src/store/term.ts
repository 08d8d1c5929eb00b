import { ApiError } from './errors.ts'
import type { Kv, KvCondition } from './kv.ts'

/** Where the epoch of the newest leader is kept: beside the objects, seen by no API. */
export const termKey = '/plasmavmc.io/term'

const maxTries = 10

/**
 * Begins a leader's term in the store: from here on whatever an earlier leader still tries to write is refused by the
 * store itself, however late it comes. The result is the same store, with that condition on each of its writes.
 * @param epoch of the leader's lease; grows with each leader
 * @throws ApiError `ServiceUnavailable` where a newer leader has begun, at the beginning as with each write later
 */
export async function beginTerm(kv: Kv, epoch: number): Promise<Kv> {
  for (let tries = 0; tries < maxTries; tries += 1) {
    const before = await kv.get(termKey)
    if (before && Number(before.value) > epoch) throw superseded(epoch, before.value)
    const revision = await kv.put(termKey, String(epoch), before?.revision ?? 0n)
    if (revision !== undefined) return new TermKv(kv, epoch, revision)
  }
  throw new ApiError('ServiceUnavailable', `the term of epoch ${epoch} could not be begun: others write it`)
}

class TermKv implements Kv {
  readonly #kv: Kv
  readonly #epoch: number
  readonly #also: { readonly key: string; readonly revision: bigint }
  readonly get: Kv['get']
  readonly list: Kv['list']
  readonly watch: Kv['watch']

  constructor(kv: Kv, epoch: number, revision: bigint) {
    this.#kv = kv
    this.#epoch = epoch
    this.#also = { key: termKey, revision }
    this.get = kv.get.bind(kv)
    this.list = kv.list.bind(kv)
    this.watch = kv.watch.bind(kv)
  }

  async put(key: string, value: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    refuseOther(also)
    return (await this.#kv.put(key, value, expected, this.#also)) ?? this.#refused()
  }

  async delete(key: string, expected: bigint, also?: KvCondition): Promise<bigint | undefined> {
    refuseOther(also)
    return (await this.#kv.delete(key, expected, this.#also)) ?? this.#refused()
  }

  /** The store goes on; only its owner closes it. */
  async close(): Promise<void> {}

  /** Which of the two conditions did not hold. */
  async #refused(): Promise<undefined> {
    const now = await this.#kv.get(termKey)
    if (now?.revision !== this.#also.revision) throw superseded(this.#epoch, now?.value ?? 'none')
    return undefined
  }
}

/** A write has room for one condition beside its own. @throws Error rather than to write without one that was asked for */
function refuseOther(also: KvCondition | undefined): void {
  if (also) throw new Error(`a leader's write holds by its term, and can't hold by ${also.key} as well`)
}

function superseded(epoch: number, newer: string): ApiError {
  return new ApiError(
    'ServiceUnavailable',
    `this server was leader of epoch ${epoch}; the leader now is that of epoch ${newer}`,
  )
}
