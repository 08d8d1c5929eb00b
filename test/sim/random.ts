import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Schedules of each file; there are two, for two processors. `SCHEDULES=500` plays a tenth. */
export const perFile = Number(process.env['SCHEDULES'] ?? 5_000)

const program = join(import.meta.dirname, '..', '..', 'bin', 'plasmavmc')

/**
 * Plays schedules as a user does, in a process of its own: one that has loaded nothing else takes less time.
 * @returns what it says at the end
 * @throws Error with everything about the first schedule of a part that breaks a rule
 */
export async function searchPart(part: number): Promise<string> {
  const words = ['simulate', '--seed', String(part * 1_000_000), '--schedules', String(perFile)]
  const played = promisify(execFile)(program, words)
  const { stdout } = await played.catch((error: { readonly stdout?: string }) => {
    throw new Error(error.stdout || String(error), { cause: error })
  })
  return stdout
}
