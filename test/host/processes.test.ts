import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { vmPaths } from '../../src/host/paths.ts'
import type { LaunchRequest, ProcessExit, ProcessIdentity } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { silentLog } from '../../src/lib/log.ts'
import { fakeBootId, fakeProc, qemuArgv } from './fake-proc.ts'
import { machine } from './machines.ts'

let root: string
/** Of each test its own: tests share one /proc. */
let uid: string
let host: HostProcesses
let moved: string[]
const children: ChildProcess[] = []
const launched: ProcessIdentity[] = []

const cgroups = {
  enter: async (id: string) => {
    moved.push(id)
    return 'entered' as const
  },
  remove: async (id: string) => void moved.push(`removed ${id}`),
}

function hostWith(options: { qemuBinary?: string; proc?: Procfs } = {}): HostProcesses {
  const common = {
    runDir: root,
    hostName: 'h1',
    accelerator: 'tcg',
    clock: systemClock,
    log: silentLog,
  } as const
  return new HostProcesses({ ...common, cgroups, ...options })
}

beforeEach(() => {
  uid = randomUUID()
  root = mkdtempSync(join(tmpdir(), 'pv-'))
  moved = []
  host = hostWith()
})

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  for (const identity of launched.splice(0)) host.signal(identity, uid, 'SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

function request(spec: Record<string, unknown> = {}): LaunchRequest {
  return { vm: machine({ memory: '64Mi', ...spec }, uid), launchId: 'l-1', epoch: 3, disks: new Map() }
}

async function launch(spec: Record<string, unknown> = {}) {
  const identity = await host.launch(request(spec))
  launched.push(identity)
  return identity
}

function nextExit(): Promise<ProcessExit> {
  return new Promise((resolve) => {
    const stop = host.onExit((exit) => {
      stop()
      resolve(exit)
    })
  })
}

const ofCode = (code: string, message = '') =>
  expect.objectContaining({ code, message: expect.stringContaining(message) })

/** A shell script that stands for QEMU. */
function standIn(version: string, body = 'exec sleep 60'): string {
  const path = join(root, 'qemu-stand-in')
  const answer = `[ "$1" = --version ] && { echo "QEMU emulator version ${version}"; exit 0; }`
  writeFileSync(path, `#!/bin/sh\n${answer}\n${body}\n`, { mode: 0o755 })
  return path
}

/** A process that only sleeps, with a QEMU's command line, under a uid of our choosing. */
function sleeper(id: string): ProcessIdentity {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', '--', ...qemuArgv(id).slice(1)])
  children.push(child)
  const stat = new Procfs().stat(child.pid!)
  if (stat.state !== 'present') throw new Error('no process')
  return { pid: child.pid!, startTime: stat.value.startTime, bootId: host.bootId }
}

function lives(pid: number): boolean {
  const stat = new Procfs().stat(pid)
  return stat.state === 'present' && stat.value.state !== 'Z'
}

describe('with a real QEMU', () => {
  test('launch, scan, inspect, stop, continue, kill', async () => {
    const identity = await launch()
    expect(identity).toMatchObject({ accelerator: 'tcg', bootId: host.bootId })
    const { processes } = await host.scan()
    expect(processes.find((p) => p.uid === uid)).toMatchObject({
      ...{
        pid: identity.pid,
        startTime: identity.startTime,
        launchId: 'l-1',
        runDir: root,
        name: 'shop/web',
      },
    })
    expect(host.inspect(identity)).toBe('alive')
    process.kill(identity.pid, 'SIGSTOP')
    await expect.poll(() => host.inspect(identity)).toBe('stopped')
    expect((await host.scan()).processes.some((p) => p.uid === uid)).toBe(true)
    expect(host.signal(identity, uid, 'SIGCONT')).toBe('sent')
    await expect.poll(() => host.inspect(identity)).toBe('alive')
    const exit = nextExit()
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('sent')
    expect(await exit).toMatchObject({ uid, signal: 'SIGKILL', identity: { pid: identity.pid } })
    expect(host.inspect(identity)).toBe('gone')
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('gone')
    expect(moved).toEqual([uid])
  })

  test('it has a session of its own, a private folder and a record to adopt it by', async () => {
    const identity = await launch()
    expect(
      execFileSync('ps', ['-o', 'sid=', '-p', String(identity.pid)])
        .toString()
        .trim(),
    ).toBe(String(identity.pid))
    const paths = vmPaths(root, uid)
    expect(statSync(paths.dir).mode & 0o777).toBe(0o700)
    const record = await host.launchRecord(uid)
    expect(record).toMatchObject({
      version: 1,
      launchId: 'l-1',
      epoch: 3,
      hostName: 'h1',
      bootId: host.bootId,
    })
    expect(record?.manifest.spec).toEqual(request().vm.spec)
    const cmdline = readFileSync(`/proc/${identity.pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
    expect(record?.argv).toEqual(cmdline)
    expect(existsSync(`${paths.launch}.part`)).toBe(false)
  })

  test('what QEMU refuses is in the exit, with its code', async () => {
    const exit = nextExit()
    await launch({ cpu: { model: 'no-such-model' } })
    expect(await exit).toMatchObject({ uid, exitCode: 1, output: expect.stringContaining('no-such-model') })
    expect(await host.log(uid, 4096)).toContain('no-such-model')
    const second = nextExit()
    await launch({ cpu: { model: 'other-model' } })
    expect((await second).output).not.toContain('no-such-model')
  })

  test('a second launch is refused while the first lives, ours or another’s, and after a restart of ours', async () => {
    const { pid } = await launch()
    await expect(host.launch(request())).rejects.toEqual(ofCode('AlreadyRunning', String(pid)))
    await expect(hostWith().launch(request())).rejects.toEqual(ofCode('AlreadyRunning'))
    await expect(host.cleanup(uid)).rejects.toEqual(ofCode('StillRunning'))
    expect(existsSync(vmPaths(root, uid).launch)).toBe(true)
  })

  test('of launches at once only one starts', async () => {
    const results = await Promise.allSettled([host.launch(request()), host.launch(request())])
    for (const result of results) if (result.status === 'fulfilled') launched.push(result.value)
    expect(results).toEqual([
      expect.objectContaining({ status: 'fulfilled' }),
      { status: 'rejected', reason: ofCode('AlreadyRunning', 'under way') },
    ])
    expect((await host.scan()).processes.filter((p) => p.uid === uid)).toHaveLength(1)
  })

  test('cleanup removes the folder and the cgroup of a machine that is gone', async () => {
    const identity = await launch()
    const exit = nextExit()
    host.signal(identity, uid, 'SIGTERM')
    await exit
    await host.cleanup(uid)
    expect(existsSync(vmPaths(root, uid).dir)).toBe(false)
    expect(moved).toEqual([uid, `removed ${uid}`])
    expect(await host.launchRecord(uid)).toBeUndefined()
    expect(await host.log(uid, 100)).toBe('')
    await host.cleanup(uid)
  })
})

test('a scan that misses an ended child comes after the news of how it ended', async () => {
  host = hostWith({ qemuBinary: standIn('8.0.0', 'exec sleep 60 # $@') })
  const identity = await launch()
  let told = false
  host.onExit(() => {
    told = true
  })
  process.kill(identity.pid, 'SIGKILL')
  // Without a turn of the event loop: dead, and nobody can have heard of it yet.
  while (host.inspect(identity) !== 'gone');
  expect(told).toBe(false)
  expect((await host.scan()).processes.some(({ pid }) => pid === identity.pid)).toBe(false)
  expect(told).toBe(true)
})

describe('before the fork', () => {
  test('a stopped QEMU of this uid refuses the launch: it is not absent', async () => {
    const other = sleeper(uid)
    process.kill(other.pid, 'SIGSTOP')
    await expect.poll(() => host.inspect(other)).toBe('stopped')
    await expect(host.launch(request())).rejects.toEqual(ofCode('AlreadyRunning'))
  })

  test('an incomplete scan refuses the launch and the cleanup', async () => {
    const proc = fakeProc({ 10: { argv: ['sh'] } })
    proc.breakEntry(10, 'cmdline')
    const blind = hostWith({ proc: new Procfs(proc.root) })
    await expect(blind.launch(request())).rejects.toEqual(ofCode('AlreadyRunning', 'process 10'))
    await expect(blind.cleanup(uid)).rejects.toEqual(ofCode('StillRunning'))
    expect(existsSync(vmPaths(root, uid).dir)).toBe(false)
  })

  test('a QEMU that appears while the launch prepares refuses it, and its record is left alone', async () => {
    const proc = fakeProc({})
    const slow = standIn('8.0.0')
    const racing = hostWith({ proc: new Procfs(proc.root), qemuBinary: slow })
    const launching = racing.launch(request())
    proc.put(20, { argv: qemuArgv(uid) })
    await expect(launching).rejects.toEqual(ofCode('AlreadyRunning', '20'))
    expect(existsSync(vmPaths(root, uid).launch)).toBe(false)
  })

  test('a taken port names its field', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    const forwards = [{ hostPort: port, guestPort: 22 }]
    const spec = { networks: [{ name: 'a' }, { name: 'b', user: { forwards } }] }
    const field = 'spec.networks[1].user.forwards[0].hostPort'
    await expect(host.launch(request(spec))).rejects.toEqual(ofCode('PortTaken', field))
    server.close()
  })

  test('a missing QEMU, an old one and another program are told apart', async () => {
    const missing = hostWith({ qemuBinary: 'no-such-qemu' })
    await expect(missing.launch(request())).rejects.toMatchObject({ code: 'QemuMissing', hint: /install/ })
    const old = hostWith({ qemuBinary: standIn('6.2.0') })
    await expect(old.launch(request())).rejects.toEqual(ofCode('QemuTooOld', '6.2.0'))
    await expect(hostWith({ qemuBinary: '/bin/true' }).launch(request())).rejects.toEqual(
      ofCode('QemuMissing'),
    )
  })

  test('a run directory that is no directory is told', async () => {
    writeFileSync(join(root, 'vms'), '')
    await expect(host.launch(request())).rejects.toEqual(ofCode('RunDirUnusable', root))
  })

  test('a folder in the run directory that is a link, or of another user, is refused and left alone', async () => {
    const paths = vmPaths(root, uid)
    const elsewhere = mkdtempSync(join(tmpdir(), 'pv-'))
    writeFileSync(join(elsewhere, 'qmp.sock'), '')
    mkdirSync(dirname(paths.dir))
    symlinkSync(elsewhere, paths.dir)
    const before = statSync(elsewhere).mode
    await expect(host.launch(request())).rejects.toEqual(ofCode('RunDirUnusable', 'link'))
    expect(existsSync(join(elsewhere, 'qmp.sock'))).toBe(true)
    expect(statSync(elsewhere).mode).toBe(before)
    await host.cleanup(uid)
    expect(existsSync(join(elsewhere, 'qmp.sock'))).toBe(true)
    if (process.getuid?.() === 0) {
      mkdirSync(paths.dir)
      chownSync(paths.dir, 12_345, 12_345)
      await expect(host.launch(request())).rejects.toEqual(ofCode('RunDirUnusable', 'another user'))
    }
    rmSync(elsewhere, { recursive: true })
  })

  test('a QEMU that can’t be identified after its start is stopped, not left behind', async () => {
    const proc = new Procfs()
    const hidden = Object.assign(Object.create(proc) as Procfs, {
      pids: () => proc.pids(),
      cmdline: (pid: number) => proc.cmdline(pid),
      stat: (pid: number) => (launchedBy(pid) ? { state: 'unreadable', why: 'EMFILE' } : proc.stat(pid)),
      bootId: () => proc.bootId(),
    })
    const launchedBy = (pid: number) => {
      const argv = proc.cmdline(pid)
      return argv.state === 'present' && argv.value.includes(uid)
    }
    const blind = hostWith({ proc: hidden })
    await expect(blind.launch(request())).rejects.toEqual(ofCode('LaunchFailed', 'EMFILE'))
    expect((await host.scan()).processes.filter((p) => p.uid === uid)).toEqual([])
  })

  test('stale sockets go, and a log above 1 MiB is emptied', async () => {
    const paths = vmPaths(root, uid)
    mkdirSync(paths.dir, { recursive: true })
    for (const path of [paths.console, paths.guestAgent, paths.vnc]) writeFileSync(path, '')
    writeFileSync(paths.log, 'x'.repeat(2 ** 20 + 1))
    host = hostWith({ qemuBinary: standIn('8.0.0', 'echo started; exec sleep 60 # $@') })
    const { pid } = await host.launch(request())
    await expect.poll(() => host.log(uid, 100)).toBe('started\n')
    expect(existsSync(paths.guestAgent)).toBe(false)
    expect(existsSync(paths.vnc)).toBe(false)
    process.kill(pid, 'SIGKILL')
  })
})

describe('signals', () => {
  const stranger = '99999999-1111-2222-3333-444444444444'

  test('another start time is another process: it is never signalled', () => {
    const identity = sleeper(uid)
    const reused = { ...identity, startTime: identity.startTime - 1 }
    expect(host.inspect(reused)).toBe('gone')
    expect(host.signal(reused, uid, 'SIGKILL')).toBe('gone')
    expect(lives(identity.pid)).toBe(true)
  })

  test('another boot is another process', () => {
    const identity = sleeper(uid)
    expect(host.signal({ ...identity, bootId: fakeBootId }, uid, 'SIGKILL')).toBe('gone')
    expect(lives(identity.pid)).toBe(true)
  })

  test('another uid on the command line is not it', () => {
    const identity = sleeper(stranger)
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('not-it')
    expect(lives(identity.pid)).toBe(true)
  })

  test('a QEMU without a uid is nobody’s', () => {
    const { root: tree } = fakeProc({ 10: { argv: ['qemu-system-x86_64'], startTime: 7 } })
    const fake = hostWith({ proc: new Procfs(tree) })
    expect(fake.signal({ pid: 10, startTime: 7, bootId: fakeBootId }, '', 'SIGCONT')).toBe('not-it')
  })

  test('pid 1, groups and what can’t be read are never signalled', () => {
    const proc = fakeProc({ 10: { argv: qemuArgv(uid), startTime: 7 } })
    proc.put(1, { argv: qemuArgv(uid), startTime: 7 })
    const fake = hostWith({ proc: new Procfs(proc.root) })
    const at = (pid: number) => ({ pid, startTime: 7, bootId: fakeBootId })
    for (const pid of [1, 0, -1, 1.5, Number.NaN]) expect(fake.signal(at(pid), uid, 'SIGCONT')).toBe('not-it')
    proc.breakEntry(10, 'stat')
    expect(fake.inspect(at(10))).toBe('unknown')
    expect(fake.signal(at(10), uid, 'SIGCONT')).toBe('not-it')
  })

  test('a zombie is gone', async () => {
    // A parent that never reaps: its child ends and stays a zombie.
    const parent = spawn('sh', ['-c', 'sleep 0.05 & echo $!; exec sleep 60'])
    children.push(parent)
    const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)))
    const stat = new Procfs().stat(pid)
    const startTime = stat.state === 'present' ? stat.value.startTime : 0
    const identity = { pid, startTime, bootId: host.bootId }
    await expect.poll(() => readFileSync(`/proc/${pid}/stat`, 'utf8')).toContain(') Z ')
    expect(host.inspect(identity)).toBe('gone')
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('gone')
  })
})

describe('launch.json', () => {
  test('one that is damaged is an error, not an absence', async () => {
    const paths = vmPaths(root, uid)
    mkdirSync(paths.dir, { recursive: true })
    for (const text of ['', '{"version":1', '{"version":2}']) {
      writeFileSync(paths.launch, text)
      await expect(host.launchRecord(uid)).rejects.toEqual(ofCode('LaunchRecordUnreadable'))
    }
  })

  test('a uid that is a path is refused', async () => {
    await expect(host.cleanup('../..')).rejects.toEqual(ofCode('BadUid'))
  })
})
