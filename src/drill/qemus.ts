import { hasEnded, Procfs } from '../host/procfs.ts'

/** A live process with `-uuid` on its command line. */
export interface Qemu {
  readonly pid: number
  readonly startTime: number
  /** State letter of proc(5): T is stopped by a signal. */
  readonly state: string
  readonly uid: string
  readonly argv: readonly string[]
}

const proc = new Procfs()

function look(pid: number): Qemu | undefined {
  const argv = proc.cmdline(pid)
  const at = argv.state === 'present' ? argv.value.indexOf('-uuid') : -1
  if (argv.state !== 'present' || at < 0) return undefined
  const stat = proc.stat(pid)
  if (stat.state !== 'present' || hasEnded(stat.value)) return undefined
  const { startTime, state } = stat.value
  return { pid, startTime, state, uid: argv.value[at + 1] ?? '', argv: argv.value }
}

/** Live processes with a `-uuid` on their command line that `wanted` takes. */
export function qemusOf(wanted: (argv: readonly string[]) => boolean): Qemu[] {
  return proc.pids().flatMap((pid) => {
    const qemu = look(pid)
    return qemu && wanted(qemu.argv) ? [qemu] : []
  })
}

/** Takes the QEMUs whose files lie in a folder: only those of a lab there can. */
export const below = (folder: string) => (argv: readonly string[]) =>
  argv.some((word) => word.includes(`${folder}/`))

/** Start time of a live process, field 22 of its stat: with the pid it tells one process from every other. */
export function startTimeOf(pid: number): number {
  const stat = proc.stat(pid)
  if (stat.state !== 'present' || hasEnded(stat.value)) throw new Error(`process ${pid} does not live`)
  return stat.value.startTime
}

/**
 * QEMUs that lived at one moment with the same uid. The pids of a folder are read one after the other, so one may
 * have ended before the other began: whatever looks like two is looked at again, in the order of the first look.
 */
export function doubles(wanted: (argv: readonly string[]) => boolean): Qemu[][] {
  const byUid = Map.groupBy(qemusOf(wanted), (qemu) => qemu.uid)
  const several = [...byUid.values()].filter((qemus) => qemus.length > 1)
  return several.filter((qemus) => qemus.every(({ pid, startTime }) => look(pid)?.startTime === startTime))
}
