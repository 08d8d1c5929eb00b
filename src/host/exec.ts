import {
  type ChildProcess,
  type ChildProcessWithoutNullStreams,
  type SpawnOptions,
  spawn,
} from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { errnoOf, messageOf, PlasmaError } from '../lib/errors.ts'

export interface RunOptions {
  readonly signal?: AbortSignal | undefined
  /** Deadline in milliseconds; 60 000 unless given. The child is killed (SIGKILL) when it passes. */
  readonly timeoutMs?: number
  /** Most bytes kept of stdout and of stderr, each; 1 MiB unless given. More than that on stdout fails the run. */
  readonly maxBuffer?: number
  /** Written to stdin, which is then closed. */
  readonly input?: string | Uint8Array
  /**
   * For a program that may take long: where setpriv(1) is installed, the kernel kills it with us, even where we are
   * killed. qemu-img would go on for hours, writing what nobody waits for.
   */
  readonly endsWithUs?: boolean
  /** Exit codes that mean success; only 0 unless given. */
  readonly exitCodes?: readonly number[]
  /** Gets stdout as it comes (progress); stdout is then kept only to `maxBuffer` and never overflows. */
  readonly onStdout?: (text: string) => void
  /** Its whole environment, instead of the little that programs are given otherwise. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Runs it in a process group of its own, of which nothing is left when it has ended or is killed. */
  readonly ownGroup?: boolean
}

export interface Output {
  readonly stdout: string
  readonly stderr: string
}

/** How a program ended; one of the two is there. */
export interface Ended extends Output {
  readonly exitCode?: number
  readonly signal?: string
}

/** The last `limit` bytes of a stream; what came before is dropped. */
function tailOf(limit: number) {
  let chunks: Buffer[] = []
  let bytes = 0
  return {
    overflowed: false,
    push(chunk: Buffer) {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes <= limit) return
      this.overflowed = true
      const kept = Buffer.concat(chunks)
      chunks = [kept.subarray(kept.length - limit)]
      bytes = limit
    },
    text: () => Buffer.concat(chunks).toString('utf8'),
  }
}

/** What a program may know of our environment; the rest may hold keys and tokens. */
const passedOn = [
  'PATH',
  'LD_LIBRARY_PATH',
  'QEMU_MODULE_DIR',
  'TMPDIR',
  'XDG_RUNTIME_DIR',
  'DBUS_SESSION_BUS_ADDRESS',
]

function environment(): Record<string, string> {
  const kept = passedOn.flatMap((name) => {
    const value = process.env[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  // Some messages are read by us: they must not be translated.
  return { ...Object.fromEntries(kept), LC_ALL: 'C' }
}

const closeOnExec = 0o2000000

/** Descriptors above 2 that a child would inherit: what we were started with, and what libraries open that way. */
export function inheritable(): number[] {
  const found: number[] = []
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name)
    if (fd <= 2) continue
    try {
      const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]
      if (flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0) found.push(fd)
    } catch (error) {
      // The one that listed the folder is closed by now.
      if (errnoOf(error) !== 'ENOENT') throw error
    }
  }
  return found.sort((a, b) => a - b)
}

/**
 * Starts a program that gets none of our open files (the embedded store's among them: a guest that breaks out of its
 * QEMU must not find it there), none of our secrets, and makes files for our user only. Node can't close a descriptor
 * in a child, so /dev/null is put in its place.
 */
function start(
  file: string,
  args: readonly string[],
  stdio: readonly ('pipe' | 'ignore' | number)[],
  { env = environment(), ...options }: Pick<SpawnOptions, 'cwd' | 'detached' | 'env'> = {},
): ChildProcess {
  const leaking = inheritable()
  const all: ('pipe' | 'ignore' | number)[] = [...stdio]
  const nothing = leaking.length > 0 ? openSync('/dev/null', 'r+') : undefined
  const mask = process.umask(0o077)
  try {
    for (const fd of leaking) {
      while (all.length < fd) all.push('ignore')
      all[fd] = nothing!
    }
    return spawn(file, args, { ...options, stdio: all, env })
  } finally {
    process.umask(mask)
    if (nothing !== undefined) closeSync(nothing)
  }
}

function missing(file: string, cause: unknown): PlasmaError {
  return errnoOf(cause) === 'ENOENT'
    ? new PlasmaError('CommandMissing', `${file} is not installed or not on PATH`, {
        hint: `install ${file}`,
        cause,
      })
    : new PlasmaError('CommandFailed', `${file} cannot be run: ${messageOf(cause)}`, { cause })
}

// What setpriv says where the program it should become is not there.
const isMissing = ({ exitCode, stderr }: Ended) =>
  exitCode === 127 && stderr.startsWith('setpriv: failed to execute')

function failed(file: string, { exitCode, signal, stderr }: Ended): PlasmaError {
  const how = signal === undefined ? `exit code ${exitCode}` : `signal ${signal}`
  return new PlasmaError('CommandFailed', `${file} failed with ${how}: ${stderr.trim() || 'no message'}`)
}

/** How long the output of a program that has ended is waited for where others may still hold its pipes. */
const pipesMs = 1_000

const setpriv = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path))

/** @throws PlasmaError where it can't even be tried: Node throws some errors of fork and exec, and emits others. */
function startPiped(
  file: string,
  args: readonly string[],
  { endsWithUs = false, ownGroup = false, env }: RunOptions,
): ChildProcessWithoutNullStreams {
  const tied = endsWithUs && setpriv !== undefined
  const [program, all] = tied ? [setpriv, ['--pdeathsig', 'KILL', '--', file, ...args]] : [file, args]
  try {
    const stdio = ['pipe', 'pipe', 'pipe'] as const
    return start(program, all, stdio, {
      detached: ownGroup,
      ...(env && { env }),
    }) as ChildProcessWithoutNullStreams
  } catch (error) {
    throw missing(file, error)
  }
}

/** SIGKILL for a child, or for the whole group that it leads. */
function killAll(child: ChildProcess, ownGroup: boolean): void {
  if (!ownGroup || child.pid === undefined) return void child.kill('SIGKILL')
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    // Nobody of it is left.
    if (errnoOf(error) !== 'ESRCH') throw error
  }
}

/**
 * Runs a program to its end, without a shell.
 * @throws PlasmaError `CommandMissing`, `CommandFailed` (message ends in stderr), `CommandOutputTooLong`, `Timeout`;
 *   the signal's reason where it was aborted. The child is dead by then.
 */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Output> {
  const ended = await runToEnd(file, args, options)
  const { stdout, stderr, exitCode } = ended
  if (exitCode !== undefined && (options.exitCodes ?? [0]).includes(exitCode)) return { stdout, stderr }
  throw failed(file, ended)
}

/**
 * As `run`, for programs whose exit code is an answer: whatever it is, it is given back; `exitCodes` does not count.
 * @throws PlasmaError `CommandMissing`, `CommandFailed` where it can't be run, `CommandOutputTooLong`, `Timeout`
 */
export function runToEnd(file: string, args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { signal, timeoutMs = 60_000, maxBuffer = 1 << 20, input, onStdout, ownGroup = false } = options
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const child = startPiped(file, args, options)
    const stdout = tailOf(maxBuffer)
    const stderr = tailOf(maxBuffer)
    let why: unknown
    const kill = (reason: unknown) => {
      why ??= reason
      killAll(child, ownGroup)
    }
    const onAbort = () => kill(signal?.reason)
    const seconds = timeoutMs / 1000
    const timer = setTimeout(
      () => kill(new PlasmaError('Timeout', `${file} took longer than ${seconds} s`)),
      timeoutMs,
    )
    signal?.addEventListener('abort', onAbort, { once: true })
    let late: NodeJS.Timeout | undefined
    const settle = (end: () => void) => {
      clearTimeout(timer)
      clearTimeout(late)
      signal?.removeEventListener('abort', onAbort)
      end()
    }
    child.stdout.on('data', (chunk: Buffer) => {
      stdout.push(chunk)
      if (onStdout) onStdout(chunk.toString('utf8'))
      else if (stdout.overflowed)
        kill(new PlasmaError('CommandOutputTooLong', `${file} wrote more than ${maxBuffer} bytes`))
    })
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    // A program that ends without reading its input is judged by its exit code, not by EPIPE.
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    child.on('error', (error) => settle(() => reject(why ?? missing(file, error))))
    // Once killed, don't wait for 'close': a grandchild may hold the pipes for ever.
    const finish = (code: number | null, by: string | null) => {
      const ended: Ended = {
        ...{ stdout: stdout.text(), stderr: stderr.text() },
        ...(code === null ? {} : { exitCode: code }),
        ...(by === null ? {} : { signal: by }),
      }
      settle(() => (isMissing(ended) ? reject(missing(file, { code: 'ENOENT' })) : resolve(ended)))
    }
    child.on('exit', (code, by) => {
      if (why !== undefined) return settle(() => reject(why))
      if (!ownGroup) return
      killAll(child, true)
      // What left the group may hold the pipes for ever.
      late = setTimeout(() => finish(code, by), pipesMs)
    })
    child.on('close', finish)
  })
}

export interface Detached {
  readonly pid: number
  /** SIGKILL; nothing where it has ended. */
  readonly kill: () => void
  /** Resolves when it has ended and was reaped; never rejects. */
  readonly exited: Promise<{ readonly exitCode?: number; readonly signal?: string }>
}

function ending(child: ChildProcess): Detached['exited'] {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) =>
      resolve({ ...(code === null ? {} : { exitCode: code }), ...(signal === null ? {} : { signal }) }),
    )
  })
}

/**
 * Starts a program that outlives us: own session, no controlling terminal, stdin from /dev/null, stdout and stderr to
 * the file descriptor `output` (the caller closes its own copy). Resolves once it is forked and executed.
 * @throws PlasmaError `CommandMissing`, `CommandFailed`
 */
export function spawnDetached(
  file: string,
  args: readonly string[],
  options: { readonly output: number; readonly cwd?: string } & Pick<RunOptions, 'env'>,
): Promise<Detached> {
  return new Promise((resolve, reject) => {
    const { output, cwd = '/', env } = options
    let child: ChildProcess
    try {
      child = start(file, args, ['ignore', output, output], { detached: true, cwd, ...(env && { env }) })
    } catch (error) {
      return reject(missing(file, error))
    }
    const exited = ending(child)
    child.once('error', (error) => reject(missing(file, error)))
    child.once('spawn', () => {
      child.unref()
      resolve({ pid: child.pid!, kill: () => void child.kill('SIGKILL'), exited })
    })
  })
}
