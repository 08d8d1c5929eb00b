import { isReason } from './errors.ts'
import { apiError } from './etcd-cluster.ts'
import { sharedPrefix } from './etcd-keys.ts'
import { type StreamOptions, streamEtcd } from './etcd-stream.ts'
import { Feed } from './feed.ts'
import { historyChunk, tooOld, weightOf } from './history.ts'
import type { KvEvent, WatchProgress } from './kv.ts'

/** A reader wants what is not kept here any more: everything after `from`. */
class Behind extends Error {
  readonly from: bigint

  constructor(from: bigint) {
    super(`behind: ${from}`)
    this.from = from
  }
}

/** Readers of etcd's watches: one watch a kind, however many readers, begun with the first and ended with the last. */
export class EtcdWatches {
  readonly #options: StreamOptions
  readonly #shared = new Map<string, SharedWatch>()

  constructor(options: StreamOptions) {
    this.#options = options
  }

  /** How many watches are shared; for tests. */
  get size(): number {
    return this.#shared.size
  }

  async *watch(
    prefix: string,
    from: bigint,
    given: AbortSignal,
    progress?: WatchProgress,
  ): AsyncGenerator<KvEvent> {
    const { cluster } = this.#options
    const signal = AbortSignal.any([given, cluster.closed])
    if (signal.aborted) return
    await this.#refuseFuture(from)
    let seen = from
    while (!signal.aborted) {
      const shared = this.#join(prefix, seen)
      try {
        for await (const event of this.#read(shared, prefix, seen, signal, progress)) {
          seen = event.revision
          yield event
        }
        if (!signal.aborted) shared.check(seen)
      } finally {
        this.#leave(shared)
      }
    }
  }

  /** From what is kept, then live; what is not kept comes from a watch of its own until it meets the shared one. */
  async *#read(
    shared: SharedWatch,
    prefix: string,
    from: bigint,
    signal: AbortSignal,
    progress: WatchProgress | undefined,
  ): AsyncGenerator<KvEvent> {
    let seen = from
    for (;;) {
      try {
        return yield* shared.live(prefix, seen, signal, progress)
      } catch (error) {
        if (!(error instanceof Behind)) throw error
        seen = error.from
      }
      for await (const { events, upTo } of streamEtcd(this.#options, shared.prefix, seen, signal)) {
        for (const event of events) {
          if (event.key.startsWith(prefix)) yield event
          if (signal.aborted) return
        }
        seen = upTo
        if (seen >= shared.oldest) break
      }
      if (signal.aborted) return
    }
  }

  /** etcd itself would wait until the future has come. */
  async #refuseFuture(from: bigint): Promise<void> {
    const { cluster, keys } = this.#options
    if (from <= cluster.revision) return
    const request = { key: keys.of('') }
    await cluster
      .read((client, timeoutMs) => client.range(request, timeoutMs))
      .catch((error: unknown) => {
        throw apiError(error, "can't be watched")
      })
    if (from > cluster.revision) throw tooOld(from)
  }

  #join(prefix: string, from: bigint): SharedWatch {
    const place = sharedPrefix(prefix)
    const shared = this.#shared.get(place) ?? this.#open(place, from)
    shared.readers += 1
    return shared
  }

  #open(place: string, from: bigint): SharedWatch {
    const shared = new SharedWatch(this.#options, place, from)
    this.#shared.set(place, shared)
    // Once: what each reader waited for in vain would be kept for as long as there is one.
    void shared.ended.then(() => this.#drop(shared))
    return shared
  }

  #leave(shared: SharedWatch): void {
    shared.readers -= 1
    if (shared.readers > 0) return
    shared.stop()
    this.#drop(shared)
  }

  #drop(shared: SharedWatch): void {
    if (this.#shared.get(shared.prefix) === shared) this.#shared.delete(shared.prefix)
  }
}

/** One watch of etcd that fans out, with the latest of its events kept. */
class SharedWatch {
  readonly prefix: string
  /** Resolves when it has failed. */
  readonly ended: Promise<void>
  readers = 0
  readonly #limits: StreamOptions['kept']
  readonly #feed = new Feed()
  readonly #stop = new AbortController()
  readonly #failed = new AbortController()
  #kept: KvEvent[] = []
  #bytes = 0
  #oldest: bigint
  #upTo: bigint
  #failure: unknown

  constructor(options: StreamOptions, prefix: string, from: bigint) {
    this.prefix = prefix
    this.#limits = options.kept
    this.#oldest = from
    this.#upTo = from
    this.ended = this.#run(options).catch((error: unknown) => {
      this.#failure = error
      this.#failed.abort()
    })
  }

  /** All events after this revision are kept, as far as they have come. */
  get oldest(): bigint {
    return this.#oldest
  }

  stop(): void {
    this.#stop.abort()
  }

  /**
   * What is kept, then what comes, until the signal is aborted or the watch fails: then `check` says why.
   * @throws Behind
   */
  live(prefix: string, from: bigint, signal: AbortSignal, progress?: WatchProgress): AsyncGenerator<KvEvent> {
    const either = AbortSignal.any([signal, this.#failed.signal])
    return this.#feed.watch(prefix, from, either, (after) => this.#since(after), progress)
  }

  /** @throws the failure, unless the reader was further than the watch and can go on with another one */
  check(seen: bigint): void {
    if (!this.#failed.signal.aborted) return
    if (isReason(this.#failure, 'Gone') && seen > this.#upTo) return
    throw this.#failure
  }

  async #run(options: StreamOptions): Promise<void> {
    for await (const { events, upTo } of streamEtcd(options, this.prefix, this.#upTo, this.#stop.signal)) {
      this.#upTo = upTo
      for (const event of events) {
        this.#kept.push(event)
        this.#bytes += weightOf(event)
      }
      this.#trim()
      this.#feed.publish(events, upTo)
    }
  }

  /** Half is cut off at a time, so that an event's cost does not depend on how many are kept. */
  #trim(): void {
    const { events, bytes } = this.#limits
    while (this.#kept.length > events || (this.#bytes > bytes && this.#kept.length > 0)) {
      for (const event of this.#kept.splice(0, Math.ceil(this.#kept.length / 2))) {
        this.#bytes -= weightOf(event)
        this.#oldest = event.revision
      }
    }
  }

  #since(after: bigint): readonly KvEvent[] {
    if (after < this.#oldest) throw new Behind(after)
    let low = 0
    let high = this.#kept.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#kept[middle]?.revision ?? 0n) > after) high = middle
      else low = middle + 1
    }
    return this.#kept.slice(low, low + historyChunk)
  }
}
