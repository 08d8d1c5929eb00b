import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Cgroups, cgroupMounts, groupsOf, limitsOf, scopeArgs } from '../../src/host/cgroup.ts'
import { vmPaths } from '../../src/host/paths.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { machine, uid } from './machines.ts'

const v1 = [
  'cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0',
  'cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0',
  'cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0',
].join('\n')
const v2 = 'cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n'
const limits = { memoryBytes: 1 << 29, cpus: 2 }

function logger() {
  const lines: string[] = []
  return { lines, log: { ...silentLog, warn: (message: string) => void lines.push(message) } }
}

describe('limits', () => {
  test('a guest, what QEMU needs around it, and a processor for each of its own', () => {
    const { spec } = machine({ memory: '1Gi', cpu: { cores: 2, sockets: 2, threads: 2 } })
    expect(limitsOf(spec, 'kvm')).toEqual({ memoryBytes: (1024 + 256 + 8) * 2 ** 20, cpus: 8 })
    expect(limitsOf(spec, 'tcg').memoryBytes).toBe((1024 + 1280 + 8) * 2 ** 20)
  })
})

describe('groups', () => {
  test('version 1 has one below each controller, also where version 2 is mounted beside it', () => {
    expect(
      groupsOf(v1, uid, limits, 42).map(({ dir, files }) => [dir, ...files.map((f) => f.join('='))]),
    ).toEqual([
      [`/sys/fs/cgroup/memory/plasmavmc/${uid}`, 'memory.limit_in_bytes=536870912', 'cgroup.procs=42'],
      [
        `/sys/fs/cgroup/cpu,cpuacct/plasmavmc/${uid}`,
        ...['cpu.cfs_period_us=100000', 'cpu.cfs_quota_us=200000', 'cgroup.procs=42'],
      ],
    ])
  })

  test('version 2 has one', () => {
    expect(groupsOf(v2, uid, limits, 42)).toEqual([
      {
        parent: '/sys/fs/cgroup/plasmavmc',
        dir: `/sys/fs/cgroup/plasmavmc/${uid}`,
        files: [
          ['memory.max', '536870912'],
          ['cpu.max', '200000 100000'],
          ['cgroup.procs', '42'],
        ],
      },
    ])
  })

  test('version 2 hands its controllers down to the group', async () => {
    const root = mkdtempSync(join(tmpdir(), 'cg-'))
    onTestFinished(() => rmSync(root, { recursive: true }))
    mkdirSync(join(root, 'plasmavmc'))
    for (const dir of [root, join(root, 'plasmavmc')]) writeFileSync(join(dir, 'cgroup.subtree_control'), '')
    const mounts = async () => `cgroup2 ${root} cgroup2 rw 0 0\n`
    const cgroups = new Cgroups({ clock: systemClock, log: silentLog, systemd: false, mounts })
    expect(await cgroups.enter(uid, 42, limits)).toBe('entered')
    expect(readFileSync(join(root, 'plasmavmc/cgroup.subtree_control'), 'utf8')).toBe('+memory +cpu')
    expect(readFileSync(join(root, 'plasmavmc', uid, 'cgroup.procs'), 'utf8')).toBe('42')
  })

  test('systemd gets a scope with its properties counted', () => {
    const args = scopeArgs(uid, 42, limits, { user: false })
    expect(args.slice(0, 9)).toEqual([
      ...['--system', 'call', 'org.freedesktop.systemd1', '/org/freedesktop/systemd1'],
      ...['org.freedesktop.systemd1.Manager', 'StartTransientUnit', 'ssa(sv)a(sa(sv))'],
      ...[`plasmavmc-${uid}-42.scope`, 'fail'],
    ])
    expect(args.slice(9)).toEqual([
      ...['5', 'PIDs', 'au', '1', '42', 'MemoryMax', 't', '536870912', 'CPUQuotaPerSecUSec', 't', '2000000'],
      ...['Slice', 's', 'plasmavmc.slice', 'CollectMode', 's', 'inactive-or-failed', '0'],
    ])
  })

  test('at a shutdown a scope is stopped after the service that started it', () => {
    const args = scopeArgs(uid, 42, limits, { user: false, service: 'plasmavmc.service' })
    expect(args[9]).toBe('6')
    expect(args.slice(-5)).toEqual(['Before', 'as', '1', 'plasmavmc.service', '0'])
  })

  test('what is not permitted is said once, and nothing fails', async () => {
    const { lines, log } = logger()
    const cgroups = new Cgroups({ clock: systemClock, log, systemd: false, mounts: async () => '' })
    expect(await cgroups.enter(uid, 42, limits)).toBe('not-permitted')
    expect(await cgroups.enter(uid, 42, limits)).toBe('not-permitted')
    expect(lines).toHaveLength(1)
    await cgroups.remove(uid)
  })
})

/** The folder of this host's memory controller where we may write, as root on version 1 has it. */
function writableMemoryRoot(): string | undefined {
  const { v1: mounts } = cgroupMounts(readFileSync('/proc/self/mounts', 'utf8'))
  const root = mounts.get('memory')
  return process.getuid?.() === 0 ? root : undefined
}

test('on this host: a real process enters its group, or is told it may not, and the group goes', async () => {
  const child = spawn('sleep', ['60'])
  onTestFinished(() => void child.kill('SIGKILL'))
  const id = randomUUID()
  const { lines, log } = logger()
  const cgroups = new Cgroups({ clock: systemClock, log, systemd: false })
  const result = await cgroups.enter(id, child.pid!, limits)
  const root = writableMemoryRoot()
  if (root !== undefined && result === 'entered') {
    const dir = join(root, 'plasmavmc', id)
    expect(readFileSync(`/proc/${child.pid}/cgroup`, 'utf8')).toContain(`/plasmavmc/${id}`)
    expect(readFileSync(join(dir, 'memory.limit_in_bytes'), 'utf8').trim()).toBe(String(limits.memoryBytes))
  } else if (result === 'not-permitted') expect(lines).toHaveLength(1)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await ended
  await cgroups.remove(id)
  if (root !== undefined) expect(existsSync(join(root, 'plasmavmc', id))).toBe(false)
})

test('a QEMU whose server died before it could group it is grouped by the next server, once', async () => {
  const runDir = mkdtempSync(join(tmpdir(), 'pv-'))
  onTestFinished(() => rmSync(runDir, { recursive: true, force: true }))
  const id = randomUUID()
  const entered: unknown[] = []
  const server = () => {
    const cgroups = {
      enter: async (...args: unknown[]) => {
        entered.push(args)
        return 'entered' as const
      },
      remove: async () => {},
    }
    const common = { runDir, hostName: 'h1', accelerator: 'tcg', clock: systemClock, log: silentLog } as const
    return new HostProcesses({ ...common, cgroups })
  }
  const vm = machine({ memory: '64Mi' }, id)
  const first = server()
  const { pid, ...identity } = await first.launch({ vm, launchId: 'l-1', epoch: 1, disks: new Map() })
  onTestFinished(() => void first.signal({ pid, ...identity }, id, 'SIGKILL'))
  const second = server()
  for (let i = 0; i < 3; i++) await second.scan()
  const expected = [id, pid, limitsOf(vm.spec, 'tcg')]
  await expect.poll(() => entered).toEqual([expected, expected])
})

test('on this host: a launched QEMU lands in its group, and cleanup removes it', async () => {
  const runDir = mkdtempSync(join(tmpdir(), 'pv-'))
  onTestFinished(() => rmSync(runDir, { recursive: true, force: true }))
  const id = randomUUID()
  const common = { runDir, hostName: 'h1', accelerator: 'tcg', clock: systemClock } as const
  const { lines, log } = logger()
  const host = new HostProcesses({ ...common, log })
  const vm = machine({ memory: '64Mi' }, id)
  const identity = await host.launch({ vm, launchId: 'l-1', epoch: 1, disks: new Map() })
  const group = () => readFileSync(`/proc/${identity.pid}/cgroup`, 'utf8').includes(id) || lines.length > 0
  await expect.poll(group).toBe(true)
  const ended = new Promise((resolve) => host.onExit(resolve))
  expect(host.signal(identity, id, 'SIGKILL')).toBe('sent')
  await ended
  await host.cleanup(id)
  expect(existsSync(vmPaths(runDir, id).dir)).toBe(false)
  const root = writableMemoryRoot()
  if (root !== undefined) expect(existsSync(join(root, 'plasmavmc', id))).toBe(false)
})
