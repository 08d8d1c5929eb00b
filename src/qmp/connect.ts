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
}

const pollMs = 2

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

/** Resolves at the first change in the folder, or after `ms` where nothing is told. */
function changeOrPause(folder: string, ms: number, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      cancel()
      watcher?.close()
      resolve()
    }
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

/**
 * Connects to a QMP socket and negotiates, waiting for QEMU to listen where that is asked for.
 * @throws ConnectError whose code is `no-socket` or `refused`; HandshakeError, QmpTimeout, Interrupted
 */
export async function connectQmp(path: string, options: ConnectOptions): Promise<QmpSession> {
  const { clock, waitMs, handshakeMs } = options
  const deadline = clock.elapsed() + waitMs
  for (;;) {
    try {
      return await QmpSession.open(await dial(path), { clock, deadlineMs: handshakeMs })
    } catch (error) {
      const code = errnoOf(error)
      const missing = code === 'ENOENT'
      if (!missing && code !== 'ECONNREFUSED') throw error
      if (clock.elapsed() >= deadline) {
        const what = missing ? 'there is no QMP socket' : 'nothing listens on the QMP socket'
        throw new ConnectError(missing ? 'no-socket' : 'refused', `${what} ${path}: ${messageOf(error)}`, {
          cause: error,
        })
      }
      // bind(2) makes the file, listen(2) comes a moment later without a sign: then only trying again helps.
      if (missing) await changeOrPause(dirname(path), Math.min(20, deadline - clock.elapsed()), clock)
      else await sleep(clock, pollMs)
    }
  }
}
