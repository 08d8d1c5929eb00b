import { watch } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { type Clock, sleep } from '../lib/clock.ts'
import { errnoOf, messageOf } from '../lib/errors.ts'
import { ConnectError } from './errors.ts'
import { QmpSession } from './session.ts'

export interface ConnectOptions {
  readonly clock: Clock
  /** How long to wait for QEMU to make its socket and listen, ms; 0 tries once. */
  readonly waitMs: number
  /** For the greeting after that, ms. */
  readonly handshakeMs: number
  /** Gives up, at whatever point. */
  readonly signal?: AbortSignal | undefined
}

const pollMs = 2

/** A connection to a Unix socket is there or refused at once: it needs no deadline of its own. */
function dial(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.removeListener('error', reject)
      resolve(socket)
    })
    socket.once('error', reject)
  })
}

/** Resolves at the first change in the folder, at an abort, or after `ms` where nothing is told. */
function changeOrPause(folder: string, ms: number, clock: Clock, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      cancel()
      watcher?.close()
      signal?.removeEventListener('abort', finish)
      resolve()
    }
    signal?.addEventListener('abort', finish, { once: true })
    const cancel = clock.after(ms, finish)
    let watcher: ReturnType<typeof watch> | undefined
    try {
      watcher = watch(folder, finish)
      watcher.on('error', finish)
    } catch {
      // No folder yet, or no inotify instances left: the pause alone does it.
    }
  })
}

/** Why nobody could be reached yet. EAGAIN: more clients wait to be accepted than the socket lets wait. */
const reasons: Readonly<Record<string, readonly [code: string, what: string]>> = {
  ENOENT: ['no-socket', 'there is no QMP socket'],
  ECONNREFUSED: ['refused', 'nothing listens on the QMP socket'],
  EAGAIN: ['busy', 'nobody accepts connections on the QMP socket'],
}

/**
 * Connects to a QMP socket and negotiates, waiting for QEMU to listen where that is asked for.
 * @throws ConnectError whose code is `no-socket`, `refused` or `busy`; what `QmpSession.open` throws; the signal's reason
 */
export async function connectQmp(path: string, options: ConnectOptions): Promise<QmpSession> {
  const { clock, waitMs, handshakeMs, signal } = options
  const deadline = clock.elapsed() + waitMs
  for (;;) {
    signal?.throwIfAborted()
    try {
      return await QmpSession.open(await dial(path), { clock, deadlineMs: handshakeMs, signal })
    } catch (error) {
      const reason = reasons[errnoOf(error) ?? '']
      if (!reason) throw error
      const [code, what] = reason
      if (clock.elapsed() >= deadline)
        throw new ConnectError(code, `${what} ${path}: ${messageOf(error)}`, { cause: error })
      // bind(2) makes the file, listen(2) comes a moment later without a sign: then only trying again helps.
      if (code === 'no-socket')
        await changeOrPause(dirname(path), Math.min(20, deadline - clock.elapsed()), clock, signal)
      else await sleep(clock, pollMs, signal)
    }
  }
}
