import { setImmediate as turn } from 'node:timers/promises'
import { ApiError } from '../../../src/store/errors.ts'
import type { ObjectStore } from '../../../src/store/objects.ts'

/** How a call ends: as it should, not made, or made although its caller is told that nobody knows. */
export type How = 'ok' | 'lost' | 'late'

interface Waiting {
  readonly actor: string
  readonly end: (how: How) => Promise<void>
}

const broken = () => new ApiError('ServiceUnavailable', 'the store gave no answer in time')

/** Holds every call of every actor until the test lets it go on. */
export class Gate {
  readonly #waiting: Waiting[] = []

  call<T>(actor: string, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const end = async (how: How) => {
        if (how === 'lost') return reject(broken())
        const done = work()
        if (how === 'ok') return void (await done.then(resolve, reject))
        await done.catch(() => {})
        reject(broken())
      }
      this.#waiting.push({ actor, end })
    })
  }

  /** Lets the oldest call of an actor end. @returns whether there was one */
  async let(actor: string, how: How = 'ok'): Promise<boolean> {
    const index = this.#waiting.findIndex((one) => one.actor === actor)
    const [one] = index < 0 ? [] : this.#waiting.splice(index, 1)
    await one?.end(how)
    await turn()
    return one !== undefined
  }

  store(actor: string, objects: ObjectStore): ObjectStore {
    const through = <T>(work: () => Promise<T>) => this.call(actor, work)
    return {
      get: (kind, ref) => through(() => objects.get(kind, ref)),
      list: (kind, options) => through(() => objects.list(kind, options)),
      create: (kind, object, options) => through(() => objects.create(kind, object, options)),
      update: (kind, object, options) => through(() => objects.update(kind, object, options)),
      updateStatus: (kind, object, options) => through(() => objects.updateStatus(kind, object, options)),
      delete: (kind, ref, options) => through(() => objects.delete(kind, ref, options)),
      watch: (kind, options) => objects.watch(kind, options),
    }
  }
}
