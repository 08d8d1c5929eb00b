import { type Clock, sleep } from '../lib/clock.ts'
import type { Log } from '../lib/log.ts'
import { ApiError } from './errors.ts'
import type { EtcdClient, EtcdStream, IWatchResponse } from './etcd-client.ts'
import type { EtcdCluster } from './etcd-cluster.ts'
import { apiErrorOf, EtcdFailure, failureOf } from './etcd-errors.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import { tooOld } from './history.ts'
import type { KvEvent } from './kv.ts'

/** What a watch has shown: its events, oldest first, and up to which revision it has shown everything. */
export interface Batch {
  readonly events: readonly KvEvent[]
  readonly upTo: bigint
}

/** When a watch that is silent is asked for a sign of life, and when it is given up after that. Milliseconds. */
export interface SilenceTimes {
  readonly askMs: number
  readonly answerMs: number
}

export const silenceTimes: SilenceTimes = { askMs: 2_000, answerMs: 2_000 }

export interface StreamOptions {
  readonly cluster: EtcdCluster
  readonly keys: EtcdKeys
  readonly log: Log
  readonly silence: SilenceTimes
  /** How many events, and bytes of them, are kept for readers that come later or are slow. */
  readonly kept: { readonly events: number; readonly bytes: number }
}

const retryBaseMs = 50
const retryCapMs = 2_000
/** Failures that look as if etcd will not let us in; a token may just have expired. */
const maxDenials = 3

/**
 * Everything under a prefix after revision `from`, in order, each once, until the signal is aborted. A watch that breaks
 * or falls silent is made anew, on the next endpoint, from where it was.
 * @throws ApiError `Gone` where etcd's history does not reach back, `ServiceUnavailable` where it will not let us in
 */
export async function* streamEtcd(
  options: StreamOptions,
  prefix: string,
  from: bigint,
  signal: AbortSignal,
): AsyncGenerator<Batch> {
  const { cluster, log } = options
  let upTo = from
  let failures = 0
  let denials = 0
  while (!signal.aborted) {
    const client = cluster.current
    try {
      for await (const batch of session(options, client, prefix, upTo, signal)) {
        if (failures > 0)
          log.info('etcd: the watch goes on', { prefix, endpoint: client.endpoint, from: `${upTo}` })
        failures = 0
        denials = 0
        upTo = batch.upTo
        yield batch
      }
    } catch (error) {
      if (error instanceof ApiError) throw error
      const failure = failureOf(error)
      if (failure.kind === 'compacted' || failure.kind === 'future') throw tooOld(upTo)
      if (failure.kind === 'denied' && ++denials >= maxDenials) throw apiErrorOf(failure, "can't be watched")
      if (failures === 0) log.warn('etcd: a watch was lost', { prefix, message: failure.message })
      failures += 1
      // etcd says denied of a watch with a token that it has forgotten.
      if (failure.kind === 'denied' || failure.kind === 'token') client.renew()
      else cluster.failed(client, failure)
    }
    const ms = Math.min(retryCapMs, retryBaseMs * 2 ** Math.min(failures, 10))
    await sleep(cluster.clock, ms, signal).catch(() => {})
  }
}

/** One watch on one endpoint, until it fails. Begins with a batch without events once etcd has accepted it. */
async function* session(
  { cluster, keys, silence }: StreamOptions,
  client: EtcdClient,
  prefix: string,
  from: bigint,
  signal: AbortSignal,
): AsyncGenerator<Batch> {
  // A linearizable read of the past: the endpoint lives, has a leader, knows us and knows that revision. A watch of it
  // would tell some of these later, and some never.
  const head = { key: keys.of(prefix), ...(from > 0n && { revision: String(from) }) }
  await cluster.once(client, (one, timeoutMs) => one.range(head, timeoutMs))
  const stream = await client.watch(silence.answerMs)
  try {
    stream.send({
      create_request: {
        ...{ key: keys.of(prefix), range_end: keys.end(prefix), start_revision: String(from + 1n) },
        ...{ prev_kv: true, fragment: true, progress_notify: true },
      },
    })
    const first = await next(stream, cluster.clock, silence, signal)
    if (!first) return
    let upTo = from
    yield { events: [], upTo }
    for (;;) {
      const message = await next(stream, cluster.clock, silence, signal)
      if (!message) return
      const events = message.events.map((event) => {
        const known = keys.event(event)
        if (!known) throw new EtcdFailure('compacted', 'an event has lost what it replaced')
        return known
      })
      const last = events.at(-1)?.revision
      // Only what was sent to this very watch comes in order with its events; -1 answers a question about all of them.
      const progress =
        events.length === 0 && message.watch_id !== '-1' ? BigInt(message.header.revision) : upTo
      const now = last ?? progress
      const told = now > upTo
      if (told) upTo = now
      cluster.saw(upTo)
      const write = events.findLast((event) => event.type === 'put')
      if (write) cluster.sawWrite({ ...write, key: keys.of(write.key).toString() })
      if (told || events.length > 0) yield { events, upTo }
    }
  } finally {
    stream.close()
  }
}

/** The next message; undefined when the signal is aborted. @throws EtcdFailure where there is none to come */
async function next(
  stream: EtcdStream,
  clock: Clock,
  { askMs, answerMs }: SilenceTimes,
  signal: AbortSignal,
): Promise<IWatchResponse | undefined> {
  const message = stream.messages.next()
  // It is nobody's when the watch is given up.
  message.catch(() => {})
  let result = await orAfter(message, clock, askMs, signal)
  if (result === 'late') {
    stream.send({ progress_request: {} })
    result = await orAfter(message, clock, answerMs, signal)
  }
  if (result === 'late') throw new EtcdFailure('unknown', `silent for ${askMs + answerMs} ms`)
  if (result === 'aborted') return undefined
  if (result.done) throw new EtcdFailure('unknown', 'ended by etcd')
  const { canceled, compact_revision, cancel_reason } = result.value
  if (compact_revision !== '0') throw new EtcdFailure('compacted', `compacted up to ${compact_revision}`)
  if (canceled) throw failureOf(new Error(cancel_reason || 'cancelled by etcd'))
  return result.value
}

async function orAfter<T>(
  work: Promise<T>,
  clock: Clock,
  ms: number,
  signal: AbortSignal,
): Promise<T | 'late' | 'aborted'> {
  if (signal.aborted) return 'aborted'
  let cancel = () => {}
  let onAbort = () => {}
  const other = new Promise<'late' | 'aborted'>((resolve) => {
    cancel = clock.after(ms, () => resolve('late'))
    onAbort = () => resolve('aborted')
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work, other])
  } finally {
    cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
