import { closeSync, constants, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { errnoOf } from '../../../src/lib/errors.ts'

/** Takes a name of the kernel's own for as long as this process lives. @returns whether it was free */
export function takeName(name: string): Promise<boolean> {
  const holder = createServer((socket) => socket.destroy())
  holder.unref()
  return new Promise((resolve, reject) => {
    holder.once('error', (error) => (errnoOf(error) === 'EADDRINUSE' ? resolve(false) : reject(error)))
    holder.listen(`\0${name}`, () => resolve(true))
  })
}

/**
 * Writes and locks a pidfile as QEMU does (qemu_write_pidfile): the lock is on the file and not on its name, is held
 * until the process ends, and a second process that wants it ends. Node.js has no file locks, so the file's inode
 * number, which stays taken while the file is open, becomes a name of the kernel's.
 * @throws Error in QEMU's words
 */
export async function lockPidfile(path: string): Promise<void> {
  let fd: number
  try {
    fd = openSync(path, constants.O_CREAT | constants.O_WRONLY, 0o600)
  } catch (error) {
    throw new Error(`cannot create PID file: Cannot open pid file: ${(error as Error).message}`)
  }
  const { dev, ino } = fstatSync(fd)
  if (!(await takeName(`plasmavmc-fake-pidfile-${dev}-${ino}`))) {
    closeSync(fd)
    throw new Error('cannot create PID file: Cannot lock pid file: Resource temporarily unavailable')
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
}
