import { closeSync, openSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

const prefix = 'owner-'
const suffix = '.sock'
/** A connection to a Unix socket is made by the kernel: even a stopped process has it in no time. */
const deadlineMs = 5_000

/** Unix sockets have paths of at most 107 bytes; one through an open folder is short wherever the folder lies. */
async function through<T>(folder: string, token: string, work: (path: string) => Promise<T>): Promise<T> {
  const fd = openSync(folder, 'r')
  try {
    return await work(`/proc/self/fd/${fd}/${prefix}${token}${suffix}`)
  } finally {
    closeSync(fd)
  }
}

/**
 * Listens on a socket in `folder`: whoever shares the folder can tell that this process lives, also from another
 * container.
 * @returns a function that ends it
 * @throws PlasmaError `StoreUnusable` where the file system has no sockets
 */
export async function listenIn(folder: string, token: string): Promise<() => Promise<void>> {
  const server = createServer((client) => client.destroy())
  server.unref()
  await through(folder, token, (path) => {
    return new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
  }).catch((error: unknown) => {
    throw new PlasmaError('StoreUnusable', `no socket can be made in ${folder}: ${messageOf(error)}`, {
      hint: 'the data directory needs a local file system that this user may write to',
      cause: error,
    })
  })
  return async () => {
    removeSocket(folder, token)
    await new Promise((resolve) => server.close(resolve))
  }
}

export function removeSocket(folder: string, token: string): void {
  rmSync(join(folder, `${prefix}${token}${suffix}`), { force: true })
}

/** Whether a process listens on the socket of `token`. Whatever is no clear no counts as yes. */
export function answers(folder: string, token: string): Promise<boolean> {
  return through(folder, token, (path) => {
    return new Promise<boolean>((resolve) => {
      const client = connect(path)
      const end = (answer: boolean) => {
        client.destroy()
        resolve(answer)
      }
      client.setTimeout(deadlineMs, () => end(true))
      client.once('connect', () => end(true))
      client.once('error', (error) => end(!['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error) ?? '')))
    })
  })
}
