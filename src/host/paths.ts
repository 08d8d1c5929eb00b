import { join } from 'node:path'
import { PlasmaError } from '../lib/errors.ts'

/** Unix socket paths have at most 107 bytes and a NUL (unix(7)). */
const longestSocketPath = 107

export interface VmPaths {
  readonly dir: string
  readonly qmp: string
  readonly console: string
  readonly guestAgent: string
  readonly vnc: string
  readonly launch: string
  readonly pidfile: string
  /** QEMU's own stdout and stderr. */
  readonly log: string
  /** What the guest wrote to its serial console. */
  readonly consoleLog: string
}

/** Where things of one machine lie: `<run-dir>/vms/<uid>/…`. */
export function vmPaths(runDir: string, uid: string): VmPaths {
  const dir = join(runDir, 'vms', uid)
  return {
    dir,
    qmp: join(dir, 'qmp.sock'),
    console: join(dir, 'console.sock'),
    guestAgent: join(dir, 'qga.sock'),
    vnc: join(dir, 'vnc.sock'),
    launch: join(dir, 'launch.json'),
    pidfile: join(dir, 'qemu.pid'),
    log: join(dir, 'qemu.log'),
    consoleLog: join(dir, 'console.log'),
  }
}

/** @throws PlasmaError `RunDirTooLong` where sockets below it could not be bound. */
export function checkRunDir(runDir: string): void {
  const longest = vmPaths(runDir, '00000000-0000-0000-0000-000000000000').console
  const excess = Buffer.byteLength(longest) - longestSocketPath
  if (excess <= 0) return
  throw new PlasmaError(
    'RunDirTooLong',
    `run directory ${runDir} is ${excess} bytes too long for Unix sockets below it`,
    {
      hint: 'choose a shorter --run-dir, such as /run/plasmavmc',
    },
  )
}
