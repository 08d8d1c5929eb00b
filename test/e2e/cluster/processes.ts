import { type ChildProcess, execFile } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { promisify } from 'node:util'
import { Procfs } from '../../../src/host/procfs.ts'
import { errnoOf } from '../../../src/lib/errors.ts'

const execute = promisify(execFile)
export const proc = new Procfs()

/** Runs a program to its end. @returns what it printed @throws Error with what it said */
export async function command(file: string, ...args: string[]): Promise<string> {
  const { stdout } = await execute(file, args, { maxBuffer: 2 ** 24, timeout: 60_000 })
  return stdout
}

/** Runs a program in a network namespace. @returns what it printed */
export const within = (namespace: string, ...argv: string[]) =>
  command('nsenter', `--net=/run/netns/${namespace}`, '--', ...argv)

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

export const hasExited = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

export async function ended(child: ChildProcess | undefined): Promise<void> {
  if (child && !hasExited(child)) await once(child, 'exit')
}

export async function textOf(stream: NodeJS.ReadableStream | null): Promise<string> {
  let all = ''
  for await (const chunk of stream ?? []) all += String(chunk)
  return all
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
