import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

/** Members of /proc/PID/stat that we use (proc(5)). */
export interface ProcessStat {
  readonly pid: number
  readonly comm: string
  /** R, S, D, T, t, Z, X, I … */
  readonly state: string
  readonly threads: number
  /** Clock ticks after boot, field 22. */
  readonly startTime: number
}

/**
 * Reads /proc/PID/stat. The command name may hold spaces and parentheses, so it ends at the last `)`.
 * @returns undefined where the text is no such line
 */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open < 1 || close < open) return undefined
  const fields = text
    .slice(close + 2)
    .trim()
    .split(' ')
  const [pid, threads, startTime] = [text.slice(0, open), fields[17], fields[19]].map(Number)
  const state = fields[0] ?? ''
  if (!Number.isSafeInteger(pid) || !Number.isSafeInteger(startTime) || state === '') return undefined
  return { pid: pid!, comm: text.slice(open + 1, close), state, threads: threads ?? 1, startTime: startTime! }
}

/** Arguments of /proc/PID/cmdline: each ends in a NUL. */
export function parseCmdline(text: string): string[] {
  if (text === '') return []
  return (text.endsWith('\0') ? text.slice(0, -1) : text).split('\0')
}

/** What reading one entry gave: it is there, it is surely not there, or we could not see. */
export type Read<T> =
  | { readonly state: 'present'; readonly value: T }
  | { readonly state: 'gone' }
  | { readonly state: 'unreadable'; readonly why: string }

/**
 * Linux takes argument lists of up to 6 MiB (fs/exec.c); a process can pretend to have a longer one (prctl(2),
 * PR_SET_MM_MAP). It is cut here: a QEMU of ours names itself in its first arguments.
 */
const longestCmdline = 8 << 20
const usualBuffer = 64 << 10

/** A /proc; `root` differs in tests. Synchronous, so that nothing happens between a check and a signal. */
export class Procfs {
  readonly #root: string
  #buffer = Buffer.allocUnsafe(usualBuffer)

  constructor(root = '/proc') {
    this.#root = root
  }

  /** Every process id that we may see. @throws the system error where the folder can't be read */
  pids(): number[] {
    return readdirSync(this.#root)
      .filter((name) => /^[1-9]\d*$/.test(name))
      .map(Number)
  }

  stat(pid: number): Read<ProcessStat> {
    const read = this.#read(join(this.#root, String(pid), 'stat'))
    if (read.state !== 'present') return read
    const value = parseStat(read.value)
    return value ? { state: 'present', value } : { state: 'unreadable', why: `stat of ${pid} is malformed` }
  }

  cmdline(pid: number): Read<string[]> {
    const read = this.#read(join(this.#root, String(pid), 'cmdline'))
    return read.state === 'present' ? { state: 'present', value: parseCmdline(read.value) } : read
  }

  /** Text of /proc/PID/cgroup (cgroups(7)). */
  cgroup(pid: number): Read<string> {
    return this.#read(join(this.#root, String(pid), 'cgroup'))
  }

  /** The kernel's random id of this boot. @throws PlasmaError `ProcUnusable` where /proc is not mounted, or only in part */
  bootId(): string {
    const file = join(this.#root, 'sys/kernel/random/boot_id')
    try {
      return readFileSync(file, 'utf8').trim()
    } catch (error) {
      throw new PlasmaError('ProcUnusable', `${file} can't be read: ${messageOf(error)}`, {
        hint: 'mount -t proc proc /proc, without subset=pid: QEMUs are told by it',
        cause: error,
      })
    }
  }

  #read(path: string): Read<string> {
    let fd: number | undefined
    try {
      fd = openSync(path, 'r')
      return { state: 'present', value: this.#readAll(fd) }
    } catch (error) {
      // ESRCH: it ended between open and read.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return { state: 'gone' }
      return { state: 'unreadable', why: messageOf(error) }
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }

  #readAll(fd: number): string {
    let length = 0
    while (length < longestCmdline) {
      if (length === this.#buffer.length) this.#buffer = Buffer.concat([this.#buffer], length * 2)
      const bytes = readSync(fd, this.#buffer, length, this.#buffer.length - length, null)
      if (bytes === 0) break
      length += bytes
    }
    const text = this.#buffer.toString('utf8', 0, length)
    if (this.#buffer.length > 1 << 20) this.#buffer = Buffer.allocUnsafe(usualBuffer)
    return text
  }
}

/**
 * Whether a process has ended: X, or a zombie whose other threads are gone too. A zombie leader with threads left
 * may still hold disks open.
 */
export function hasEnded(stat: ProcessStat): boolean {
  return stat.state === 'X' || (stat.state === 'Z' && stat.threads <= 1)
}
