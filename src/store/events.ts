import { createHash } from 'node:crypto'
import { type Clock, rfc3339 } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { type Meter, unmetered } from '../lib/measures.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { Event } from '../resources/kinds.ts'
import { isReason } from './errors.ts'
import { type Correlated, EventCorrelator } from './event-correlator.ts'
import type { ObjectStore } from './objects.ts'

export interface Happening {
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  readonly message: string
}

export interface RecorderOptions {
  readonly clock: Clock
  readonly component: string
  readonly host: string
  readonly log: Log
  /** Measures nothing unless given. */
  readonly meter?: Meter
}

/** Records waiting to be written; more than this many are dropped and counted in the log. */
const maxWaiting = 1_000
const tries = 3

type ToWrite = Extract<Correlated, { spam: false }>

/**
 * Writes Kubernetes Events: one object for each (source, object, reason, message) with a count; similar ones are
 * combined and too many are left out, as EventCorrelator says. Never throws, never blocks.
 */
export class EventRecorder {
  readonly #objects: ObjectStore
  readonly #options: RecorderOptions
  readonly #meter: Meter
  readonly #correlator: EventCorrelator
  #tail: Promise<void> = Promise.resolve()
  #waiting = 0

  constructor(objects: ObjectStore, options: RecorderOptions) {
    this.#objects = objects
    this.#options = options
    this.#meter = options.meter ?? unmetered
    this.#correlator = new EventCorrelator(options.clock)
  }

  record(kind: ResourceDefinition, about: KubeObject, happening: Happening): void {
    const { log } = this.#options
    const { reason } = happening
    const { name, uid = '' } = about.metadata
    const correlated = this.#correlator.correlate({ about: `${kind.kind} ${uid || name}`, ...happening })
    if (correlated.spam) {
      this.#count('spam')
      return log.debug('event not written: too many of this object', { reason, name })
    }
    if (this.#waiting >= maxWaiting) {
      this.#count('dropped')
      return log.warn('event dropped: too many wait', { reason, name })
    }
    this.#waiting += 1
    this.#tail = this.#tail
      .then(() => this.#write(kind, about, happening, correlated))
      .then((result) => this.#count(result))
      .catch((error: unknown) => {
        this.#count('failed')
        log.warn('event not recorded', { reason, message: messageOf(error) })
      })
      .finally(() => {
        this.#waiting -= 1
      })
  }

  /** Resolves when what was recorded so far is written or given up. */
  flush(): Promise<void> {
    return this.#tail
  }

  async #write(
    kind: ResourceDefinition,
    about: KubeObject,
    { type, reason }: Happening,
    { key, message, occurrences }: ToWrite,
  ): Promise<'created' | 'counted' | 'failed'> {
    const { component, host, clock } = this.#options
    const { name, namespace, uid = '', resourceVersion } = about.metadata
    const at = rfc3339(clock.now())
    const hash = createHash('sha256').update(`${component}\0${host}\0${key}`).digest('hex').slice(0, 16)
    // Events of objects without a namespace are in `default`, as everywhere in Kubernetes.
    const metadata = { name: `${name}.${hash}`, namespace: namespace ?? 'default' }
    for (let i = 0; i < tries; i += 1) {
      try {
        const before = await this.#find(metadata)
        if (before) {
          const count = (before.count ?? 1) + occurrences
          await this.#objects.update(Event, { ...before, message, count, lastTimestamp: at })
          return 'counted'
        }
        await this.#objects.create(Event, {
          ...{ apiVersion: apiVersionOf(Event), kind: 'Event', metadata, type, reason, message },
          count: occurrences,
          involvedObject: {
            ...{ apiVersion: apiVersionOf(kind), kind: kind.kind, name, uid },
            ...(namespace !== undefined && { namespace }),
            ...(resourceVersion !== undefined && { resourceVersion }),
          },
          ...{ firstTimestamp: at, lastTimestamp: at, reportingComponent: component },
          ...{ reportingInstance: host, source: { component, host } },
        })
        return 'created'
      } catch (error) {
        if (!isReason(error, 'Conflict') && !isReason(error, 'AlreadyExists')) throw error
      }
    }
    return 'failed'
  }

  async #find(ref: { name: string; namespace: string }): Promise<Event | undefined> {
    try {
      return await this.#objects.get(Event, ref)
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }

  #count(result: string): void {
    this.#meter.add('plasmavmc_events_total', { result })
  }
}
