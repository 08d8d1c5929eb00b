import { basename } from 'node:path'
import { messageOf } from '../lib/errors.ts'
import type { QemuProcess, Scan } from './ports.ts'
import { hasEnded, type Procfs } from './procfs.ts'
import { identityFile } from './qemu-args.ts'
import { parseOptionList } from './qemu-options.ts'

/** What a QEMU's command line says of it. */
export type CommandLineIdentity = Pick<QemuProcess, 'uid' | 'name' | 'launchId' | 'epoch' | 'runDir'>

/** QEMU takes `--uuid` for `-uuid`. The first one counts: ours come before any value a user wrote. */
function argument(argv: readonly string[], option: string, from = 1): string | undefined {
  const at = argv.findIndex((arg, i) => i >= from && (arg === option || arg === `-${option}`))
  return at < 0 ? undefined : argv[at + 1]
}

/** Whether a command line may be a QEMU's: by its name, or by arguments (a wrapper, another name, a double in tests). */
export function looksLikeQemu(argv: readonly string[]): boolean {
  const [program = ''] = argv
  if (/^qemu-(system|kvm)/.test(basename(program))) return true
  return argument(argv, '-uuid') !== undefined && argument(argv, '-pidfile') !== undefined
}

/** Launch id and epoch: `ID/EPOCH` in our identity mark. */
function markOf(argv: readonly string[]): Pick<QemuProcess, 'launchId' | 'epoch'> {
  for (let i = 1; i < argv.length; i++) {
    if (argv[i] !== '-fw_cfg' && argv[i] !== '--fw_cfg') continue
    const members = parseOptionList(argv[i + 1] ?? '', 'name')
    if (members.get('name') !== identityFile) continue
    const [launchId, epoch = ''] = members.get('string')?.split('/') ?? []
    if (launchId === undefined) return {}
    return /^\d+$/.test(epoch) ? { launchId, epoch: Number(epoch) } : { launchId }
  }
  return {}
}

/** The identity on a QEMU's command line; `uid` is empty for a foreign one that was started without `-uuid`. */
export function identityOf(argv: readonly string[]): CommandLineIdentity {
  const uid = (argument(argv, '-uuid') ?? '').toLowerCase()
  const name = parseOptionList(argument(argv, '-name') ?? '', 'guest').get('guest') ?? ''
  const suffix = `/vms/${uid}/qemu.pid`
  const pidfile = argument(argv, '-pidfile') ?? ''
  const runDir = uid !== '' && pidfile.endsWith(suffix) ? pidfile.slice(0, -suffix.length) : undefined
  return {
    uid,
    name,
    ...markOf(argv),
    ...(runDir === undefined ? {} : { runDir }),
  }
}

/**
 * Whether a command line is that of our QEMU of a machine: it bears our mark, the uid, and this run directory.
 * `sameDir` compares run directories.
 */
export function isOurQemu(
  argv: readonly string[],
  uid: string,
  sameDir: (runDir: string) => boolean,
): boolean {
  const found = identityOf(argv)
  if (uid === '' || found.uid !== uid.toLowerCase() || !looksLikeQemu(argv)) return false
  return found.launchId !== undefined && found.runDir !== undefined && sameDir(found.runDir)
}

type Entry = QemuProcess | { readonly unreadable: string; readonly passing?: true } | undefined

/** QEMUs by pid as the scan before saw them. */
export type KnownProcesses = ReadonlyMap<number, QemuProcess>

function look(proc: Procfs, pid: number, bootId: string, known: KnownProcesses): Entry {
  const argv = proc.cmdline(pid)
  if (argv.state === 'gone') return undefined
  if (argv.state === 'unreadable') return { unreadable: `process ${pid}: ${argv.why}` }
  if (argv.value.length === 0) return namelessQemu(proc, pid, known)
  if (!looksLikeQemu(argv.value)) return undefined
  const stat = proc.stat(pid)
  if (stat.state === 'gone') return undefined
  if (stat.state === 'unreadable') return { unreadable: `process ${pid}: ${stat.why}` }
  if (hasEnded(stat.value)) return undefined
  const { startTime, state } = stat.value
  return { pid, startTime, bootId, state, ...identityOf(argv.value) }
}

/**
 * A QEMU shows an empty command line while it lives, but only for a moment: at its start, between getting its new
 * memory and its arguments; at its end, once its memory is gone and its files are still being closed (which a slow
 * file system can make long), or its main thread has ended while others live. Only a scan before can tell which it
 * is. (Kernel threads have an empty one too.)
 */
function namelessQemu(proc: Procfs, pid: number, known: KnownProcesses): Entry {
  const stat = proc.stat(pid)
  if (stat.state === 'unreadable') return { unreadable: `process ${pid}: ${stat.why}` }
  if (stat.state === 'gone' || hasEnded(stat.value)) return undefined
  const before = known.get(pid)
  if (before?.startTime === stat.value.startTime) return { ...before, state: stat.value.state }
  if (!stat.value.comm.startsWith('qemu')) return undefined
  return { unreadable: `process ${pid} (QEMU) is starting or ending`, passing: true }
}

/** A scan; `passing` where what made it incomplete ends by itself in a moment. */
export type ScanResult = Scan & { readonly passing?: boolean }

/** Every QEMU in a /proc. `incomplete` says what could not be seen; such a scan proves no absence. */
export function scanProcesses(proc: Procfs, bootId: string, known: KnownProcesses = new Map()): ScanResult {
  let pids: number[]
  try {
    pids = proc.pids()
  } catch (error) {
    return { processes: [], incomplete: `processes can't be listed: ${messageOf(error)}` }
  }
  const processes: QemuProcess[] = []
  const unseen: { readonly unreadable: string; readonly passing?: true }[] = []
  // Process 1 always exists: where it is hidden, so are others (hidepid, proc(5)).
  if (!pids.includes(1)) unseen.push({ unreadable: 'processes of other users are hidden (hidepid)' })
  for (const pid of pids) {
    const entry = look(proc, pid, bootId, known)
    if (entry === undefined) continue
    if ('unreadable' in entry) unseen.push(entry)
    else processes.push(entry)
  }
  if (unseen[0] === undefined) return { processes }
  return { processes, incomplete: unseen[0].unreadable, passing: unseen.every((u) => u.passing === true) }
}
