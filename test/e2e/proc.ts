import { readdirSync, readFileSync } from 'node:fs'

export { doubles, type Qemu, qemusOf, startTimeOf } from '../../src/drill/qemus.ts'

/** Kills the guards whose folders lie in `dir`: they outlive their servers. */
export function endGuards(dir: string): void {
  for (const name of readdirSync('/proc').filter((word) => /^\d+$/.test(word))) {
    try {
      const argv = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
      if (argv.includes('guard') && argv.some((word) => word.startsWith(`${dir}/`)))
        process.kill(Number(name), 'SIGKILL')
    } catch {
      // It ended meanwhile.
    }
  }
}
