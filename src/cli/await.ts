import { PlasmaError } from '../lib/errors.ts'
import type { Client } from './client.ts'
import type { Io } from './io.ts'
import { type ClientKind, pathOf } from './kinds.ts'
import { isPassing, isTooOld, Patience } from './retry.ts'
import type { ListView, ObjectView } from './targets.ts'

export interface Awaited {
  readonly kind: ClientKind
  readonly namespace: string
  readonly name: string
  /** 0: it is looked at once. */
  readonly timeoutMs: number
  /** A server that goes away is waited for, too, once it has answered. */
  readonly patient?: boolean
  /** What is waited for, for the error. */
  readonly what: string
  /** Judges each state of the object; undefined once it is gone. */
  readonly done: (object: ObjectView | undefined) => boolean
  /** Hears each state that is not the end yet. */
  readonly progress?: (object: ObjectView) => void
  /** Describes the last state in the timeout error. */
  readonly describe: (object: ObjectView) => string
}

/** The object, as the only one of a list: that has a version of now, from which a watch can go on. */
export async function lookAtOne<T extends ObjectView>(
  client: Client,
  { kind, namespace, name }: Pick<Awaited, 'kind' | 'namespace' | 'name'>,
  signal: AbortSignal,
): Promise<{ readonly object: T | undefined; readonly resourceVersion: string | undefined }> {
  const query = { fieldSelector: `metadata.name=${name}` }
  const list = await client.json<ListView<T>>('GET', pathOf(kind, namespace), { query, signal })
  return { object: list.items[0], resourceVersion: list.metadata?.resourceVersion }
}

function late({ kind, name, timeoutMs, what, describe }: Awaited, last: ObjectView | undefined): PlasmaError {
  const after =
    timeoutMs === 0 ? 'looked once, without waiting,' : `timed out after ${timeoutMs / 1000} s waiting`
  return new PlasmaError('Timeout', `${after} for ${what}; ${name} is ${last ? describe(last) : 'unseen'}`, {
    hint: `see 'plasmavmc describe ${kind.shortNames[0] ?? kind.plural} ${name}', or give a longer --timeout`,
  })
}

/**
 * Waits for an object to get into a state: looks, then watches from there, anew whenever the server
 * ends the watch. @returns the object as it was then. @throws PlasmaError `Timeout` that says how it stands
 */
export async function awaitObject(client: Client, wanted: Awaited, io: Io): Promise<ObjectView | undefined> {
  const deadline = new AbortController()
  const signal = AbortSignal.any([deadline.signal, io.signal])
  const once = wanted.timeoutMs === 0
  const cancel = once
    ? () => {}
    : io.clock.after(wanted.timeoutMs, () => deadline.abort(new Error('deadline')))
  const patience = new Patience()
  const seen: Seen = { last: undefined, answered: false }
  try {
    for (;;) {
      try {
        const found = await lookAndWatch(client, wanted, seen, signal, once)
        if (found) return found.state
        if (once) throw late(wanted, seen.last)
        patience.reset()
      } catch (error) {
        const again = wanted.patient && seen.answered && (isPassing(error) || isTooOld(error))
        if (!again || signal.aborted || once) throw error
        await patience.wait(io, signal)
      }
    }
  } catch (error) {
    throw deadline.signal.aborted ? late(wanted, seen.last) : error
  } finally {
    cancel()
  }
}

interface Seen {
  last: ObjectView | undefined
  answered: boolean
}

/** @returns the state that was waited for; undefined when the server ended the watch before, or after one look */
async function lookAndWatch(
  client: Client,
  wanted: Awaited,
  seen: Seen,
  signal: AbortSignal,
  once: boolean,
): Promise<{ readonly state: ObjectView | undefined } | undefined> {
  const { kind, namespace, name } = wanted
  const settled = (object: ObjectView | undefined) => {
    seen.last = object ?? seen.last
    if (wanted.done(object)) return true
    if (object && !once) wanted.progress?.(object)
    return false
  }
  const { object: current, resourceVersion } = await lookAtOne(client, wanted, signal)
  seen.answered = true
  if (settled(current)) return { state: current }
  if (current === undefined) throw notThere(wanted)
  if (once) return undefined
  const query = { fieldSelector: `metadata.name=${name}`, resourceVersion, timeoutSeconds: '60' }
  for await (const frame of client.watch<ObjectView>(pathOf(kind, namespace), { query, signal })) {
    const { type, object } = frame
    if (type === 'BOOKMARK' || object.metadata.name !== name) continue
    const state = type === 'DELETED' ? undefined : object
    if (settled(state)) return { state }
    if (state === undefined) throw notThere(wanted)
  }
  return undefined
}

function notThere({ kind, name, what }: Awaited): PlasmaError {
  return new PlasmaError('NotFound', `${kind.plural} "${name}" does not exist, so ${what} can’t come`, {
    hint: `see 'plasmavmc get ${kind.plural}'`,
  })
}
