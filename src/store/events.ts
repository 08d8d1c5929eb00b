import { createHash } from 'node:crypto'
import { type Clock, rfc3339 } from '../lib/clock.ts'
import { messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { apiVersionOf, type KubeObject, type ResourceDefinition } from '../resources/define.ts'
import { Event } from '../resources/kinds.ts'
import { isReason } from './errors.ts'
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
}

/** Records waiting to be written; more than this many are dropped and counted in the log. */
const maxWaiting = 1_000
const tries = 3

/** Writes Kubernetes Events, one object for each (object, reason, message) with a count. Never throws, never blocks. */
export class EventRecorder {
  readonly #objects: ObjectStore
  readonly #options: RecorderOptions
  #tail: Promise<void> = Promise.resolve()
  #waiting = 0

  constructor(objects: ObjectStore, options: RecorderOptions) {
    this.#objects = objects
    this.#options = options
  }

  record(kind: ResourceDefinition, about: KubeObject, happening: Happening): void {
    if (this.#waiting >= maxWaiting) {
      this.#options.log.warn('event dropped: too many wait', {
        reason: happening.reason,
        name: about.metadata.name,
      })
      return
    }
    this.#waiting += 1
    this.#tail = this.#tail
      .then(() => this.#write(kind, about, happening))
      .catch((error: unknown) =>
        this.#options.log.warn('event not recorded', { reason: happening.reason, message: messageOf(error) }),
      )
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
    { type, reason, message }: Happening,
  ): Promise<void> {
    const { component, host, clock } = this.#options
    const { name, namespace = 'default', uid = '' } = about.metadata
    const at = rfc3339(clock.now())
    const hash = createHash('sha256')
      .update(`${uid}\0${type}\0${reason}\0${message}`)
      .digest('hex')
      .slice(0, 16)
    const metadata = { name: `${name}.${hash}`, namespace }
    for (let i = 0; i < tries; i += 1) {
      try {
        const before = await this.#find(metadata)
        if (before) {
          await this.#objects.update(Event, { ...before, count: (before.count ?? 1) + 1, lastTimestamp: at })
          return
        }
        await this.#objects.create(Event, {
          ...{ apiVersion: apiVersionOf(Event), kind: 'Event', metadata, type, reason, message, count: 1 },
          involvedObject: { apiVersion: apiVersionOf(kind), kind: kind.kind, namespace, name, uid },
          ...{
            firstTimestamp: at,
            lastTimestamp: at,
            reportingComponent: component,
            reportingInstance: host,
          },
          source: { component, host },
        })
        return
      } catch (error) {
        if (!isReason(error, 'Conflict') && !isReason(error, 'AlreadyExists')) throw error
      }
    }
  }

  async #find(ref: { name: string; namespace: string }): Promise<Event | undefined> {
    try {
      return await this.#objects.get(Event, ref)
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined
      throw error
    }
  }
}
