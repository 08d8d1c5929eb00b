import { PlasmaError } from '../lib/errors.ts'
import type { Client } from './client.ts'
import { isServerError } from './failure.ts'
import type { Io } from './io.ts'
import { type ClientKind, pathOf } from './kinds.ts'
import type { ObjectView } from './targets.ts'

export interface Awaited {
  readonly kind: ClientKind
  readonly namespace: string
  readonly name: string
  readonly timeoutMs: number
  /** What is waited for, for the error. */
  readonly what: string
  /** Judges each state of the object; undefined once it is gone. */
  readonly done: (object: ObjectView | undefined) => boolean
  /** Hears each state that is not the end yet. */
  readonly progress?: (object: ObjectView) => void
  /** Describes the last state in the timeout error. */
  readonly describe: (object: ObjectView) => string
}

async function look(client: Client, path: string, signal: AbortSignal): Promise<ObjectView | undefined> {
  try {
    return await client.json<ObjectView>('GET', path, { signal })
  } catch (error) {
    if (isServerError(error, 'NotFound')) return undefined
    throw error
  }
}

/**
 * Waits for an object to get into a state: looks, then watches from that resourceVersion, anew whenever the server
 * ends the watch. @returns the object as it was then. @throws PlasmaError `Timeout` that says how it stands
 */
export async function awaitObject(client: Client, wanted: Awaited, io: Io): Promise<ObjectView | undefined> {
  const { kind, namespace, name } = wanted
  const path = pathOf(kind, namespace, name)
  const late = new AbortController()
  const signal = AbortSignal.any([late.signal, io.signal])
  const cancel = io.clock.after(wanted.timeoutMs, () => late.abort(new Error('deadline')))
  let last: ObjectView | undefined
  const settled = (object: ObjectView | undefined) => {
    last = object ?? last
    if (wanted.done(object)) return true
    if (object) wanted.progress?.(object)
    return false
  }
  try {
    for (;;) {
      const current = await look(client, path, signal)
      if (settled(current)) return current
      const query = {
        fieldSelector: `metadata.name=${name}`,
        resourceVersion: current?.metadata.resourceVersion,
        timeoutSeconds: '60',
      }
      if (current === undefined) throw notThere(wanted)
      for await (const { type, object } of client.watch<ObjectView>(pathOf(kind, namespace), {
        query,
        signal,
      })) {
        if (type === 'BOOKMARK' || object.metadata.name !== name) continue
        const state = type === 'DELETED' ? undefined : object
        if (settled(state)) return state
        if (state === undefined) throw notThere(wanted)
      }
    }
  } catch (error) {
    if (!late.signal.aborted) throw error
    throw new PlasmaError(
      'Timeout',
      `timed out after ${wanted.timeoutMs / 1000} s waiting for ${wanted.what}; ${name} is ${last ? wanted.describe(last) : 'unseen'}`,
      {
        hint: `see 'plasmavmc describe ${kind.shortNames[0] ?? kind.plural} ${name}', or give a longer --timeout`,
      },
    )
  } finally {
    cancel()
  }
}

function notThere({ kind, name, what }: Awaited): PlasmaError {
  return new PlasmaError('NotFound', `${kind.plural} "${name}" does not exist, so ${what} can’t come`, {
    hint: `see 'plasmavmc get ${kind.plural}'`,
  })
}
