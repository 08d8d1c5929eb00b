import { existsSync } from 'node:fs'
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, sleep } from '../lib/clock.ts'
import { errnoOf, messageOf } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { bytesOf } from '../resources/quantity.ts'
import type { VmSpec } from '../resources/vm.ts'
import { run } from './exec.ts'
import { isBooted, ownService } from './service-manager.ts'

export interface CgroupLimits {
  readonly memoryBytes: number
  /** Whole processors. */
  readonly cpus: number
}

/** TCG keeps translated code in a buffer of up to 1 GiB (accel/tcg/region.c); KVM has none. */
const overheadBytes = { kvm: 256 * 2 ** 20, tcg: 1280 * 2 ** 20 } as const
/** Page tables and QEMU's own records grow with the guest: an eighth of a percent to half a percent of it. */
const overheadShare = 1 / 128

/** What one QEMU may use: the guest's memory and what QEMU needs around it; a processor for each guest CPU. */
export function limitsOf(spec: VmSpec, accelerator: 'kvm' | 'tcg'): CgroupLimits {
  const guest = bytesOf(spec.memory)
  const { cores, sockets, threads } = spec.cpu
  return {
    memoryBytes: guest + overheadBytes[accelerator] + Math.ceil((guest * overheadShare) / 4096) * 4096,
    cpus: cores * sockets * threads,
  }
}

/** One folder to make, and the files to write in it, in order. */
interface Group {
  readonly parent: string
  readonly dir: string
  readonly files: readonly (readonly [name: string, value: string])[]
}

const periodUs = 100_000

/** Where controllers are mounted, from /proc/self/mounts: version 1 by controller, version 2 as `unified`. */
export function cgroupMounts(mounts: string): {
  readonly v1: ReadonlyMap<string, string>
  readonly unified?: string
} {
  const v1 = new Map<string, string>()
  let unified: string | undefined
  for (const line of mounts.split('\n')) {
    const [, dir = '', type = '', options = ''] = line.split(' ')
    if (type === 'cgroup2') unified ??= dir
    if (type !== 'cgroup') continue
    for (const controller of ['memory', 'cpu']) {
      if (options.split(',').includes(controller)) v1.set(controller, dir)
    }
  }
  return unified === undefined ? { v1 } : { v1, unified }
}

/** The groups of one machine: one below each version 1 controller, or one in the unified tree. */
export function groupsOf(mounts: string, uid: string, limits: CgroupLimits, pid: number): Group[] {
  const { v1, unified } = cgroupMounts(mounts)
  const quota = String(limits.cpus * periodUs)
  const memory = String(limits.memoryBytes)
  const groups: Group[] = []
  const add = (root: string, files: Group['files']) => {
    const parent = join(root, 'plasmavmc')
    groups.push({ parent, dir: join(parent, uid), files: [...files, ['cgroup.procs', String(pid)]] })
  }
  const [memoryRoot, cpuRoot] = [v1.get('memory'), v1.get('cpu')]
  if (memoryRoot !== undefined) add(memoryRoot, [['memory.limit_in_bytes', memory]])
  if (cpuRoot !== undefined) {
    add(cpuRoot, [
      ['cpu.cfs_period_us', String(periodUs)],
      ['cpu.cfs_quota_us', quota],
    ])
  }
  if (groups.length === 0 && unified !== undefined) {
    add(unified, [
      ['memory.max', memory],
      ['cpu.max', `${quota} ${periodUs}`],
    ])
  }
  return groups
}

/** For whom a scope is made: whose manager makes it, and the service that starts it, where it is one. */
export interface ScopeOwner {
  readonly user: boolean
  readonly service?: string | undefined
}

/**
 * Arguments of busctl that put a process into its own scope, which outlives our service's cgroup. The pid makes the
 * name new: the scope of the QEMU before may not be collected yet, and a name that exists is refused.
 *
 * At a shutdown of the host systemd stops what is ordered `Before` something after it: our service is stopped first, or it
 * would take the end of each machine for a crash, count it, and start the machine again.
 */
export function scopeArgs(
  uid: string,
  pid: number,
  limits: CgroupLimits,
  { user, service }: ScopeOwner,
): string[] {
  const manager = [
    'org.freedesktop.systemd1',
    '/org/freedesktop/systemd1',
    'org.freedesktop.systemd1.Manager',
  ]
  const properties = [
    ['PIDs', 'au', '1', String(pid)],
    ['MemoryMax', 't', String(limits.memoryBytes)],
    ['CPUQuotaPerSecUSec', 't', String(limits.cpus * 1_000_000)],
    ['Slice', 's', 'plasmavmc.slice'],
    ['CollectMode', 's', 'inactive-or-failed'],
    ...(service === undefined ? [] : [['Before', 'as', '1', service]]),
  ]
  return [
    ...[user ? '--user' : '--system', 'call', ...manager, 'StartTransientUnit', 'ssa(sv)a(sa(sv))'],
    ...[`plasmavmc-${uid}-${pid}.scope`, 'fail', String(properties.length), ...properties.flat(), '0'],
  ]
}

export interface CgroupOptions {
  readonly clock: Clock
  readonly log: Log
  /** Whether systemd is process 1 (sd_booted(3)); looked up unless given. */
  readonly systemd?: boolean
  /** The service of systemd that this process is; looked up unless given. */
  readonly service?: string
  /** Text of /proc/self/mounts; read unless given. */
  readonly mounts?: () => Promise<string>
}

/**
 * Gives every QEMU its own cgroup: limits for it, and no end with the service that started it. `systemctl stop` kills
 * what is in the service's cgroup (KillMode=control-group, its default); a session of its own does not save a QEMU
 * from that, its scope does. Between fork and scope a QEMU is still in the service's group: one whose server died
 * there is moved by the next server (see `HostProcesses`). A unit should say KillMode=process as well, for hosts that
 * give us no scope. A user's scopes end with the user's manager: lingering (loginctl enable-linger) keeps it.
 *
 * Best effort: what a host does not permit is logged once, and the machine runs without.
 */
export class Cgroups {
  readonly #clock: Clock
  readonly #log: Log
  readonly #systemd: boolean
  readonly #service: string | undefined
  readonly #mounts: () => Promise<string>
  #complained = false

  constructor(options: CgroupOptions) {
    this.#clock = options.clock
    this.#log = options.log
    this.#systemd = options.systemd ?? isBooted()
    this.#service = options.service ?? ownService()
    this.#mounts = options.mounts ?? (() => readFile('/proc/self/mounts', 'utf8'))
  }

  /** Moves a process into the group of a machine. Never rejects. */
  async enter(uid: string, pid: number, limits: CgroupLimits): Promise<'entered' | 'not-permitted'> {
    try {
      if (this.#systemd) {
        const user = process.getuid?.() !== 0
        await run('busctl', scopeArgs(uid, pid, limits, { user, service: this.#service }), {
          timeoutMs: 10_000,
        })
      } else await this.#enterFolders(groupsOf(await this.#mounts(), uid, limits, pid))
      return 'entered'
    } catch (error) {
      if (!this.#complained) {
        this.#log.warn('machines run without cgroups of their own', { reason: messageOf(error) })
      }
      this.#complained = true
      return 'not-permitted'
    }
  }

  async #enterFolders(groups: readonly Group[]): Promise<void> {
    if (groups.length === 0) throw new Error('no cgroup file system is mounted')
    for (const { parent, dir, files } of groups) {
      await mkdir(dir, { recursive: true })
      // Version 2 gives a group only the controllers that each of its parents hands down.
      for (const above of [join(parent, '..'), parent]) {
        const control = join(above, 'cgroup.subtree_control')
        if (existsSync(control)) await writeFile(control, '+memory +cpu')
      }
      for (const [name, value] of files) await writeFile(join(dir, name), value)
    }
  }

  /** Removes the groups of a machine whose process is gone. Never rejects; a scope of systemd removes itself. */
  async remove(uid: string): Promise<void> {
    if (this.#systemd) return
    const mounts = await this.#mounts().catch(() => '')
    const none = { memoryBytes: 0, cpus: 0 }
    for (const { dir } of groupsOf(mounts, uid, none, 0)) await this.#removeFolder(dir)
  }

  /** A group stays busy for a moment after its last process; it is retried for a quarter of a second. */
  async #removeFolder(dir: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await rmdir(dir)
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return
        if (errnoOf(error) !== 'EBUSY' || attempt === 5) {
          return this.#log.debug('cgroup stays', { dir, reason: messageOf(error) })
        }
        await sleep(this.#clock, 50)
      }
    }
  }
}
