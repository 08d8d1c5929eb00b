import { sleep } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import type { Client } from './client.ts'
import { isServerError } from './failure.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { type ObjectView, progressOf } from './targets.ts'

/** How a WebSocket was closed (RFC 6455 section 7.4). */
export interface Closed {
  readonly code: number
  readonly reason: string
}

/** The server may write down that a machine stopped a moment after its console closed. Milliseconds. */
const settleMs = 2_000
const lookEveryMs = 250
const lookTimeoutMs = 3_000

type Seen = 'no server' | 'not told' | 'gone' | ObjectView

async function look(client: Client, path: string, io: Io): Promise<Seen> {
  try {
    const options = { timeoutMs: lookTimeoutMs, signal: io.signal }
    const object = await client.json<Partial<ObjectView>>('GET', path, options)
    return object.metadata ? (object as ObjectView) : 'not told'
  } catch (error) {
    if (io.signal.aborted) throw error
    if (isServerError(error, 'NotFound')) return 'gone'
    const lost =
      error instanceof PlasmaError && ['NoServer', 'ConnectionLost', 'Timeout'].includes(error.code)
    return lost ? 'no server' : 'not told'
  }
}

const runs = (seen: Seen) => typeof seen === 'object' && seen.status?.phase === 'Running'

/** How the machine stands; where its console ended, once the server knows that, too. */
async function standing(client: Client, path: string, io: Io, wait: boolean): Promise<Seen> {
  const until = io.clock.now() + settleMs
  for (;;) {
    const seen = await look(client, path, io)
    if (!wait || !runs(seen) || io.clock.now() >= until) return seen
    await sleep(io.clock, lookEveryMs, io.signal)
  }
}

/** Why a console that nobody left has closed, as far as the server can tell. @returns the error to end with */
export async function consoleEnded(
  client: Client,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  { code, reason }: Closed,
  io: Io,
): Promise<PlasmaError> {
  // 1000: QEMU closed its end. 1005, 1006: nobody said anything.
  const ended = code === 1000 || code === 1005
  const seen = await standing(client, pathOf(kindOf('vm'), namespace, name), io, ended)
  const closed = (why: string, hint: string) =>
    new PlasmaError('ConsoleClosed', `the console of ${name} closed: ${why}`, { hint })
  if (seen === 'no server') {
    return closed(
      'the server went away',
      `a machine runs on without it: 'plasmavmc console ${name}' again once a server answers on ${client.address}`,
    )
  }
  const see = `see 'plasmavmc describe vm ${name}'`
  if (seen === 'gone') return closed('the machine was deleted', "see 'plasmavmc events'")
  if (reason !== '' && !ended) return closed(reason, see)
  if (runs(seen)) {
    return closed(
      ended ? 'its QEMU ended; the machine runs again' : 'the connection to the server broke',
      `${name} is Running: repeat the command`,
    )
  }
  const now = typeof seen === 'object' ? `${name} is ${progressOf(seen)}; ` : ''
  if (ended || now !== '') return closed('the machine stopped', `${now}${see}`)
  return closed('the connection to the server broke', see)
}
