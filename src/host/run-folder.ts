import { chmod, lstat, mkdir, open, readdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'
import { checkRunDir, type VmPaths } from './paths.ts'

/** QEMU's own messages are short; a log above this is emptied when the machine starts. */
export const longestLog = 1 << 20

/**
 * The last `bytes` of a file after offset `from`, cut to whole characters; '' where there is none.
 * @throws other system errors
 */
export async function tailOfFile(path: string, bytes: number, from = 0): Promise<string> {
  try {
    const file = await open(path, 'r')
    try {
      const { size } = await file.stat()
      const length = Math.min(Math.max(0, size - from), bytes)
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length)
      let start = 0
      if (length < size) while (start < bytesRead && (buffer[start]! & 0xc0) === 0x80) start++
      return buffer.toString('utf8', start, bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}

async function bound(path: string): Promise<void> {
  const file = await open(path, 'a', 0o600)
  try {
    if ((await file.stat()).size > longestLog) await file.truncate(0)
  } finally {
    await file.close()
  }
}

/** Whoever can put a link or a folder of theirs here could make us change files elsewhere, or read our sockets. */
async function requireOwn(path: string): Promise<void> {
  const found = await lstat(path)
  if (!found.isDirectory()) throw new Error(`${path} is no directory, or a link to one`)
  if (found.uid !== process.geteuid?.()) throw new Error(`${path} belongs to another user (${found.uid})`)
}

/**
 * Makes the run directory of a machine ready for a launch: private, without the sockets of an earlier QEMU, its logs
 * bounded. The console's log is QEMU's to write, so both are emptied here where they have grown past 1 MiB.
 * @throws PlasmaError `RunDirTooLong`, `RunDirUnusable`
 */
export async function prepareRunFolder(runDir: string, paths: VmPaths): Promise<void> {
  checkRunDir(runDir)
  try {
    await mkdir(paths.dir, { recursive: true, mode: 0o700 })
    for (const path of [dirname(paths.dir), paths.dir]) {
      await requireOwn(path)
      await chmod(path, 0o700)
    }
    for (const socket of [paths.qmp, paths.console, paths.guestAgent, paths.vnc])
      await rm(socket, { force: true })
    await bound(paths.log)
    await bound(paths.consoleLog)
  } catch (error) {
    throw new PlasmaError('RunDirUnusable', `${paths.dir} can't be used: ${messageOf(error)}`, {
      hint: 'check its owner, its permissions and the space of its file system, or choose another --run-dir',
      cause: error,
    })
  }
}

/** Uids of the machines that have a folder in a run directory. @throws the system error where that can't be told */
export async function runFolders(runDir: string): Promise<readonly string[]> {
  try {
    return await readdir(join(runDir, 'vms'))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
