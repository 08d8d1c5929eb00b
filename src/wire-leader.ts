import type { Config } from './config.ts'
import { type Clock, systemClock } from './lib/clock.ts'
import type { Log } from './lib/log.ts'
import { leaderLease, systemNamespace } from './resources/host-lease.ts'
import { runElector } from './runtime/elector.ts'
import { defaultTerms, LeaseContender, type LeaseTerms } from './runtime/lease.ts'
import type { Kv } from './store/kv.ts'
import { KvObjects } from './store/kv-objects.ts'
import { LedObjects } from './store/led-objects.ts'
import type { ObjectStore } from './store/objects.ts'
import type { EntryReader } from './store/shown-event.ts'
import { beginTerm } from './store/term.ts'

/** What only the leader does. Its writes go through `objects`, which the store refuses once another leads. */
export interface Term {
  readonly epoch: number
  readonly objects: ObjectStore
  readonly signal: AbortSignal
}

export interface LeaderOptions {
  readonly config: Pick<Config, 'hostName'>
  /** Refuses, from a term on, what earlier leaders still write; absent on a store that can't: see `LedObjects`. */
  readonly kv?: Kv
  /** For the leader's lease itself. */
  readonly objects: ObjectStore
  readonly log: Log
  /** Runs until the signal of the term is aborted; a part that ends earlier ends the term. */
  readonly parts: readonly ((term: Term) => Promise<unknown>)[]
  readonly clock?: Clock
  readonly terms?: LeaseTerms
  readonly newUid?: () => string
  /** What objects are read with, as for `KvObjects`. */
  readonly reader?: EntryReader
}

/** Contends for leadership until the signal is aborted, and does what a leader does whenever this server is one. */
export async function runLeader(options: LeaderOptions, signal: AbortSignal): Promise<void> {
  const { config, kv, objects, parts, clock = systemClock, terms = defaultTerms } = options
  const { newUid = () => crypto.randomUUID(), reader } = options
  const log = options.log.child({ part: 'leader' })
  const contender = new LeaseContender({
    ...{ objects, clock, terms, identity: config.hostName },
    ref: { namespace: systemNamespace, name: leaderLease },
  })
  const begin = async (epoch: number, signal: AbortSignal): Promise<ObjectStore> => {
    if (!kv) return new LedObjects(objects, epoch, signal)
    return new KvObjects(await beginTerm(kv, epoch), { clock, newUid, ...(reader && { reader }) })
  }
  const lead = async (epoch: number, ended: AbortSignal) => {
    const own = await begin(epoch, ended)
    const stop = new AbortController()
    const onEnded = () => stop.abort(ended.reason)
    ended.addEventListener('abort', onEnded, { once: true })
    if (ended.aborted) onEnded()
    const term = { epoch, objects: own, signal: stop.signal }
    // The first that ends, for whatever reason, ends the others: half a leader is none.
    const runs = parts.map((part) => part(term).finally(() => stop.abort()))
    const results = await Promise.allSettled(runs)
    ended.removeEventListener('abort', onEnded)
    const failed = results.find((result) => result.status === 'rejected')
    if (failed && !ended.aborted) throw failed.reason
  }
  await runElector({ contender, terms, clock, log, lead }, signal)
}
