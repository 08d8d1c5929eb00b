import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** A thread that takes longer than this to stop is in the kernel for a reason of its own, ms. */
const boundMs = 10_000

/**
 * SIGSTOP, which takes effect when each thread gets the processor next: on a busy machine some go on for a while.
 * @returns when all have stopped
 */
export async function stopProcess(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  const until = performance.now() + boundMs
  while (!(await stands(pid))) {
    if (performance.now() > until) throw new Error(`process ${pid} goes on ${boundMs} ms after SIGSTOP`)
    await delay(1)
  }
}

/** Whether each thread is stopped: state T, see proc(5). */
async function stands(pid: number): Promise<boolean> {
  const tasks = `/proc/${pid}/task`
  const states = await Promise.all(
    (await readdir(tasks)).map(async (thread) => {
      const stat = await readFile(`${tasks}/${thread}/stat`, 'utf8')
      return stat[stat.lastIndexOf(')') + 2]
    }),
  )
  return states.every((state) => state === 'T')
}
