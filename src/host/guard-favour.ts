import { readFileSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'

const nice = -10

/**
 * Where memory is short a guard must not be what goes, and on a busy host it must get the processor when it is time: also
 * while it is being loaded, as its host has a few seconds for that. Best effort: it takes a capability.
 */
export function favour(pid: number): void {
  const tries = [
    () => setPriority(pid, nice),
    // Where sessions are scheduled as a whole (sched(7)), that tells nothing to others. Not that of a person's shell.
    () => leadsSession(pid) && writeFileSync(`/proc/${pid}/autogroup`, String(nice)),
    () => writeFileSync(`/proc/${pid}/oom_score_adj`, '-900'),
  ]
  for (const attempt of tries) {
    try {
      attempt()
    } catch {
      // Without it all works as well, only less surely.
    }
  }
}

function leadsSession(pid: number): boolean {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]) === pid
}
