import { closeSync, openSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, sleep } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { spawnDetached } from './exec.ts'
import { favour } from './guard-favour.ts'
import { type GuardRecord, processLives } from './guard-file.ts'
import { Procfs } from './procfs.ts'
import { longestLog, tailOfFile } from './run-folder.ts'

export const guardLog = (runDir: string): string => join(runDir, 'guard.log')

/**
 * Starts a guard that outlives us, with its log in the run directory. It is this very program and reaches the same store,
 * so it gets all of our environment: where the API server of a pod is, what a plugin for credentials needs, whose
 * certificates count.
 * @param command a program and its arguments
 * @returns what resolves with its last words if it ends
 * @throws PlasmaError `CommandMissing`, `CommandFailed`; the system's errors
 */
export async function spawnGuard(
  runDir: string,
  command: readonly string[],
): Promise<{ readonly pid: number; readonly ended: Promise<string> }> {
  const log = guardLog(runDir)
  const [program = '', ...args] = command
  const output = openSync(log, 'a', 0o600)
  try {
    const { size } = statSync(log)
    if (size > longestLog) truncateSync(log)
    const from = size > longestLog ? 0 : size
    const { pid, exited } = await spawnDetached(program, args, { output, env: process.env })
    favour(pid)
    const ended = exited.then(async ({ exitCode, signal }) => {
      const words = (await tailOfFile(log, 2_000, from).catch(() => ''))
        .trim()
        .split('\n')
        .slice(-3)
        .join('\n')
      return `${signal ?? `exit code ${exitCode}`}: ${words || 'it wrote nothing'}`
    })
    return { pid, ended }
  } finally {
    closeSync(output)
  }
}

/** How long a process that got SIGKILL may take to be gone, ms. */
const goneMs = 3_000

/**
 * Ends the guard that told of itself in its file, so that another one can take its place: by SIGKILL, since all that it
 * knows is in that file and nothing may happen between its last renewal and the first of the next one.
 * @returns false where that process is none any more, or no guard
 * @throws PlasmaError `GuardStuck` where it does not go away
 */
export async function endGuard(record: GuardRecord, clock: Clock, proc = new Procfs()): Promise<boolean> {
  const argv = proc.cmdline(record.pid)
  // The start time last: it is what tells a pid that is used again.
  if (argv.state !== 'present' || !argv.value.includes('guard') || record.pid <= 1) return false
  if (!processLives(record, proc)) return false
  process.kill(record.pid, 'SIGKILL')
  for (const end = clock.elapsed() + goneMs; clock.elapsed() < end; await sleep(clock, 10))
    if (!processLives(record, proc)) return true
  throw new PlasmaError('GuardStuck', `the guard, process ${record.pid}, does not end`, {
    hint: 'look what it hangs in: /proc/PID/stack; the host may need a reboot',
  })
}
