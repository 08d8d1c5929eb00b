import { randomUUID } from 'node:crypto'
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'
import { answers, listenIn, removeSocket } from './lock-socket.ts'

interface Holder {
  readonly pid: number
  /** Field 22 of /proc/PID/stat: a pid alone may be another process by now. */
  readonly startTime: string
  readonly bootId: string
  /** In another container the same pid is another process, and ours can't be seen. */
  readonly pidNamespace: string
  /** Unique among all holders there ever were; also names the socket of this one. */
  readonly token: string
}

const tries = 20
const lockFile = 'owner.json'
const successorPrefix = 'owner-after-'

function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined
    throw error
  }
}

function myself(): Holder {
  return {
    pid: process.pid,
    startTime: startTimeOf(process.pid) ?? '',
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    pidNamespace: readlinkSync('/proc/self/ns/pid'),
    token: randomUUID(),
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function parse(text: string): Partial<Holder> {
  try {
    return (JSON.parse(text) ?? {}) as Partial<Holder>
  } catch {
    // Written whole before it is linked into place: text that is no JSON was torn by a power loss.
    return {}
  }
}

async function isAlive(folder: string, holder: Partial<Holder>, me: Holder): Promise<boolean> {
  if (holder.bootId !== me.bootId || holder.pid === undefined) return false
  if (holder.pidNamespace === undefined || holder.pidNamespace === me.pidNamespace)
    return startTimeOf(holder.pid) === holder.startTime
  return holder.token !== undefined && answers(folder, holder.token)
}

/**
 * Takes the lock of a folder for the life of this process. A holder that died, even by SIGKILL, does not block; one in
 * another container of this machine does. The folder must not be shared by machines.
 * @param flag names the folder in the error's hint
 * @returns a function that gives it back
 * @throws PlasmaError `FolderInUse` naming the pid that holds it
 */
export async function lockFolder(folder: string, flag = '--data-dir'): Promise<() => Promise<void>> {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const me = myself()
  const text = JSON.stringify(me)
  const mine = join(folder, `owner.${me.token}`)
  // From before the lock is taken until after it is given back, so that nobody takes us for dead.
  const closeSocket = await listenIn(folder, me.token)
  try {
    writeFileSync(mine, text, { mode: 0o600 })
    await take(folder, mine, text, me, flag)
  } catch (error) {
    await closeSocket()
    throw error
  } finally {
    rmSync(mine, { force: true })
  }
  return async () => {
    const file = join(folder, lockFile)
    if (read(file) === text) rmSync(file, { force: true })
    await closeSocket()
  }
}

/**
 * link(2) makes a name with its whole content or not at all and never replaces one. So of all that find a holder dead
 * exactly one becomes its successor, by linking the name made of the dead one's token; then it puts itself in its place.
 */
async function take(folder: string, mine: string, text: string, me: Holder, flag: string): Promise<void> {
  const file = join(folder, lockFile)
  for (let i = 0; i < tries; i += 1) {
    if (link(mine, file)) return
    const root = read(file)
    if (root === undefined) continue
    let holder = parse(root)
    const dead: (string | undefined)[] = []
    for (;;) {
      if (await isAlive(folder, holder, me)) throw inUse(folder, holder, flag)
      dead.push(holder.token)
      const successor = join(folder, `${successorPrefix}${holder.token ?? 'nobody'}`)
      if (!link(mine, successor)) {
        const next = read(successor)
        if (next === undefined) break
        holder = parse(next)
        continue
      }
      // Somebody may have been through with it, and removed that name, since we read who was first.
      if (read(file) !== root) {
        rmSync(successor, { force: true })
        break
      }
      renameOver(mine, file, text)
      tidy(folder, dead)
      return
    }
  }
  throw new PlasmaError('FolderInUse', `${folder} is being opened by several processes at once`, {
    hint: 'try again',
  })
}

/** rename(2) does nothing where both names are links to one file, so the new content comes in a file of its own. */
function renameOver(mine: string, file: string, text: string): void {
  const copy = `${mine}.new`
  writeFileSync(copy, text, { mode: 0o600 })
  renameSync(copy, file)
}

/** Removes what dead holders left; ours is the lock now, so nobody of this chain can win any more. */
function tidy(folder: string, dead: readonly (string | undefined)[]): void {
  for (const token of dead) if (token !== undefined) removeSocket(folder, token)
  for (const name of readdirSync(folder))
    if (name.startsWith(successorPrefix)) rmSync(join(folder, name), { force: true })
}

function link(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

function inUse(folder: string, holder: Partial<Holder>, flag: string): PlasmaError {
  return new PlasmaError('FolderInUse', `${folder} is in use by the process ${holder.pid}`, {
    hint: `one server a folder: stop that one, or choose another ${flag}`,
  })
}
