import { randomUUID } from 'node:crypto'
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, PlasmaError } from '../lib/errors.ts'

interface Holder {
  readonly pid: number
  /** Field 22 of /proc/PID/stat: a pid alone may be another process by now. */
  readonly startTime: string
  readonly bootId: string
}

const tries = 5

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
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  return { pid: process.pid, startTime: startTimeOf(process.pid) ?? '', bootId }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function isAlive(text: string, me: Holder): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Holder
    const lives = holder.bootId === me.bootId && startTimeOf(holder.pid) === holder.startTime
    return lives ? holder : undefined
  } catch (error) {
    // Written whole before it is linked into place: text that is no JSON was torn by a power loss.
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/**
 * Takes the lock of a folder for the life of this process. A holder that died, even by SIGKILL, does not block.
 * @returns a function that gives it back
 * @throws PlasmaError `FolderInUse` naming the pid that holds it
 */
export function lockFolder(folder: string): () => void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const file = join(folder, 'owner.json')
  const mine = join(folder, `owner.${process.pid}.${randomUUID()}`)
  const me = myself()
  const text = JSON.stringify({ ...me, token: randomUUID() })
  writeFileSync(mine, text, { mode: 0o600 })
  try {
    for (let i = 0; i < tries; i += 1) {
      if (take(mine, file)) return () => release(file, text)
      const held = read(file)
      if (held === undefined) continue
      const holder = isAlive(held, me)
      if (holder) throw inUse(folder, holder)
      removeStale(file, held)
    }
    throw new PlasmaError('FolderInUse', `${folder} is being opened by several processes at once`, {
      hint: 'try again',
    })
  } finally {
    rmSync(mine, { force: true })
  }
}

/** link(2) makes the name with its whole content or not at all, and never replaces one. */
function take(mine: string, file: string): boolean {
  try {
    linkSync(mine, file)
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

/** Moves a dead holder's file away; where somebody else was quicker and it is a new one, puts that back. */
function removeStale(file: string, expected: string): void {
  const aside = `${file}.${randomUUID()}`
  try {
    renameSync(file, aside)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return
    throw error
  }
  if (read(aside) !== expected) take(aside, file)
  rmSync(aside, { force: true })
}

function release(file: string, text: string): void {
  if (read(file) === text) rmSync(file, { force: true })
}

function inUse(folder: string, holder: Holder): PlasmaError {
  return new PlasmaError('FolderInUse', `${folder} is in use by the process ${holder.pid}`, {
    hint: 'one server a data directory: stop that one, or choose another --data-dir',
  })
}
