import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { type Detached, run, runToEnd, spawnDetached } from '../../host/exec.ts'
import { Procfs } from '../../host/procfs.ts'
import { errnoOf } from '../../lib/errors.ts'

export const proc = new Procfs()

/** Runs a program to its end. @returns what it printed @throws PlasmaError with what it said */
export async function command(file: string, ...args: string[]): Promise<string> {
  return (await run(file, args)).stdout
}

const inNetwork = (namespace: string) => ['nsenter', `--net=/run/netns/${namespace}`, '--'] as const

/** Runs a program in a network namespace. @returns what it printed @throws PlasmaError */
export const within = (namespace: string, ...argv: string[]) => command(...inNetwork(namespace), ...argv)

/** Starts a program in a network namespace that ends with us, however we end. */
export function startWithin(namespace: string, argv: readonly string[], output: number): Promise<Detached> {
  const under = ['--pdeathsig', 'KILL', '--', ...inNetwork(namespace)]
  return spawnDetached('setpriv', [...under, ...argv], { output, cwd: process.cwd() })
}

/** The arguments that make nsenter run a program in all namespaces of a process. */
export const into = (pid: number, argv: readonly string[]) => [
  ...['--target', String(pid), '--net', '--mount', '--pid', '--', ...argv],
]

/** Runs a program in the namespaces of a process to its end; it may fail. */
export async function runInside(pid: number, argv: readonly string[], timeoutMs = 120_000) {
  const { exitCode = -1, stdout, stderr } = await runToEnd('nsenter', into(pid, argv), { timeoutMs })
  return { code: exitCode, stdout, stderr }
}

/** The namespace of a process, as a text that tells it from others; empty where it has ended. */
export function namespaceOf(pid: number, kind: 'net' | 'pid'): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/${kind}`)
  } catch {
    return ''
  }
}

/** Pids of the machine that live in this namespace. */
export function pidsIn(kind: 'net' | 'pid', namespace: string): number[] {
  return proc.pids().filter((pid) => namespaceOf(pid, kind) === namespace)
}

export function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return undefined
  }
}

/** Sends a signal to a process that may have ended. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error
  }
}

export function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'latin1')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}

export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
