import { doubles } from '../proc.ts'

/**
 * A program that looks at the /proc of the whole machine ten times a second and more, and prints, as one line of JSON
 * for each time, which machines whose files lie in the folder of its argument have two QEMUs alive, on whichever
 * hosts. It goes by processes, not by run states: a second QEMU that waits in prelaunch is a mistake as well, and the
 * one monitor of a QEMU is its agent's. On SIGTERM it tells how often it looked, and the longest time it did not.
 */
const [, , folder = ''] = process.argv
const everyMs = 40
let [looks, longestMs, last] = [0, 0, performance.now()]
const say = (value: unknown, done?: () => void) => process.stdout.write(`${JSON.stringify(value)}\n`, done)

function look(): void {
  for (const twins of doubles((argv) => argv.some((word) => word.includes(`${folder}/`)))) {
    say({ uid: twins[0]?.uid, at: Date.now(), pids: twins.map(({ pid, state }) => `${pid}${state}`) })
  }
  const now = performance.now()
  longestMs = Math.max(longestMs, now - last)
  last = now
  looks += 1
}

process.on('SIGTERM', () => say({ looks, longestMs: Math.round(longestMs) }, () => process.exit(0)))
setInterval(look, everyMs)
