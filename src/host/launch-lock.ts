import { connect, createServer } from 'node:net'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import type { VmPaths } from './paths.ts'

/**
 * Takes the right to launch a machine on this host, against every other PlasmaVMC here, whatever its run directory:
 * two that scan at once would both see nothing and both start. It is a name in Linux' abstract socket namespace
 * (unix(7)): the kernel gives it to one and takes it back when the holder dies.
 * @returns a function that gives it back
 * @throws PlasmaError `AlreadyRunning` where another one holds it
 */
export function holdLaunch(uid: string): Promise<() => void> {
  const server = createServer((socket) => socket.destroy())
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const taken = errnoOf(error) === 'EADDRINUSE'
      const why = taken ? `another process of this host is launching ${uid}` : messageOf(error)
      reject(new PlasmaError(taken ? 'AlreadyRunning' : 'LaunchFailed', why, { cause: error }))
    })
    server.listen({ path: `\0plasmavmc/launch/${uid}` }, () => resolve(() => void server.close()))
  })
}

function listens(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error) => {
      const code = errnoOf(error)
      // EAGAIN: somebody listens, and others wait to be served.
      if (code === 'EAGAIN') return resolve(true)
      const nobody = ['ENOENT', 'ENOTDIR', 'ECONNREFUSED', 'ENOTSOCK'].includes(code ?? '')
      return nobody ? resolve(false) : reject(error)
    })
  })
}

/**
 * Refuses where a process that a scan can't show (one of another PID namespace that shares our run directory) still
 * serves the sockets of a machine: only a process that lives accepts a connection.
 * @throws PlasmaError of the given code
 */
export async function refuseListeners(
  paths: Pick<VmPaths, 'qmp' | 'console'>,
  code: 'AlreadyRunning' | 'StillRunning',
): Promise<void> {
  for (const path of [paths.qmp, paths.console]) {
    const alive = await listens(path).catch((error: unknown) => messageOf(error))
    if (alive === false) continue
    const why = alive === true ? 'a process that /proc does not show listens there' : alive
    throw new PlasmaError(code, `${path}: ${why}`, {
      hint: 'it may be a QEMU of another container; stop it there, or use another --run-dir',
    })
  }
}
