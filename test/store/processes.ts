import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Compiled scripts are kept: most of the life of these processes would be their start. */
export const env = { ...process.env, NODE_COMPILE_CACHE: join(tmpdir(), 'plasmavmc-compiled') }

export interface Child {
  readonly child: ChildProcess
  /** Whole lines printed so far. */
  readonly lines: () => string[]
}

/** Runs a script of this folder in a process of its own until it has printed `wanted` lines. */
export async function run(script: string, args: readonly string[], wanted: number): Promise<Child> {
  const file = join(import.meta.dirname, script)
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env })
  let text = ''
  let count = 0
  await new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error(`${script} ended`)))
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk
      for (const byte of chunk) if (byte === 10) count += 1
      if (count >= wanted) resolve()
    })
  })
  return { child, lines: () => text.split('\n').slice(0, -1) }
}

export async function kill({ child }: Child): Promise<void> {
  const closed = once(child, 'close')
  child.kill('SIGKILL')
  await closed
}
