import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { vmPaths } from '../../src/host/paths.ts'
import type { ProcessIdentity } from '../../src/host/ports.ts'
import { HostProcesses } from '../../src/host/processes.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { systemClock } from '../../src/lib/clock.ts'
import { PlasmaError } from '../../src/lib/errors.ts'
import { silentLog } from '../../src/lib/log.ts'
import { privileged } from './disk-fixture.ts'
import { qemuArgv } from './fake-proc.ts'
import { machine } from './machines.ts'

let root: string
let uid: string
const children: ChildProcess[] = []
const qemus: number[] = []

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'pv-'))
  uid = randomUUID()
})

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  for (const pid of qemus.splice(0))
    if (existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(uid))
      process.kill(pid, 'SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

function hostOf(runDir: string): HostProcesses {
  const common = { hostName: 'h1', accelerator: 'tcg', clock: systemClock, log: silentLog } as const
  return new HostProcesses({ runDir, ...common })
}

const request = () => ({
  vm: machine({ memory: '64Mi' }, uid),
  launchId: 'l-1',
  epoch: 1,
  disks: new Map<string, string>(),
})

/** A process that only sleeps, with any command line. */
function sleeper(host: HostProcesses, argv: readonly string[]): ProcessIdentity {
  const [argv0 = '', ...args] = argv
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', '--', ...args], { argv0 })
  children.push(child)
  const stat = new Procfs().stat(child.pid!)
  if (stat.state !== 'present') throw new Error('no process')
  return { pid: child.pid!, startTime: stat.value.startTime, bootId: host.bootId }
}

describe('only our own QEMU is signalled', () => {
  const without = (argv: readonly string[], option: string) => {
    const at = argv.indexOf(option)
    return [...argv.slice(0, at), ...argv.slice(at + 2)]
  }

  test.each<[string, () => string[]]>([
    ['a foreign QEMU with our uuid', () => without(qemuArgv(uid, root), '-fw_cfg')],
    ['a QEMU of another run directory', () => qemuArgv(uid, '/run/plasmavmc')],
    ['one whose run directory begins with ours', () => qemuArgv(uid, `${root}2`)],
    ['one whose run directory lies in ours', () => qemuArgv(uid, `${root}/vms/${randomUUID()}`)],
    ['a program that only names it', () => ['grep', 'qemu-system-x86_64', '-uuid', uid]],
    ['an editor of a script that starts it', () => ['vim', 'qemu-system-x86_64', uid, 'start.sh']],
    ['a shell that would start it', () => ['sh', '-c', qemuArgv(uid, root).join(' ')]],
    ['one with two uuids, ours the second', () => [...qemuArgv(randomUUID(), root), '-uuid', uid]],
  ])('%s is not it', (_, argv) => {
    const host = hostOf(root)
    const identity = sleeper(host, argv())
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('not-it')
    expect(host.inspect(identity)).toBe('alive')
  })

  test.each<[string, (argv: string[]) => string[]]>([
    ['a wrapper or another name of the program', (argv) => ['/opt/my qemu/qemu, patched', ...argv.slice(1)]],
    ['qemu-kvm', (argv) => ['/usr/libexec/qemu-kvm', ...argv.slice(1)]],
    ['--uuid', (argv) => argv.map((arg) => (arg === '-uuid' ? '--uuid' : arg))],
    ['an upper-case uuid', (argv) => argv.map((arg) => (arg === uid ? uid.toUpperCase() : arg))],
  ])('%s is it all the same', async (_, change) => {
    const host = hostOf(root)
    const identity = sleeper(host, change(qemuArgv(uid, root)))
    await expect(host.launch(request())).rejects.toMatchObject({ code: 'AlreadyRunning' })
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('sent')
    await expect.poll(() => host.inspect(identity)).toBe('gone')
  })

  test('a run directory that is a link stays ours when the server comes back by its real name', async () => {
    const link = `${root}-link`
    symlinkSync(root, link)
    onTestFinished(() => rmSync(link))
    const identity = await hostOf(link).launch(request())
    qemus.push(identity.pid)
    const host = hostOf(root)
    const found = (await host.scan()).processes.find((process) => process.uid === uid)
    expect(found).toMatchObject({ pid: identity.pid, runDir: root })
    expect(host.signal(identity, uid, 'SIGKILL')).toBe('sent')
  })
})

/** Servers that launch the same machine at the same moment. */
async function racing(runDirs: readonly string[]) {
  const script = join(import.meta.dirname, 'launch-child.ts')
  const servers = runDirs.map((runDir, i) => fork(script, [runDir, uid, `l-${i}`]))
  children.push(...servers)
  await Promise.all(servers.map((server) => once(server, 'message')))
  const answers = servers.map((server) => once(server, 'message'))
  for (const server of servers) server.send('go')
  const results = (await Promise.all(answers)).map(([answer]) => answer as { pid?: number; code?: string })
  for (const { pid } of results) if (pid !== undefined) qemus.push(pid)
  return results
}

describe('two servers at once', () => {
  test.each([1, 2, 3])('with one run directory start one QEMU, and its record is its own (%i)', async () => {
    const results = await racing([root, root])
    expect(results.filter((result) => result.pid !== undefined)).toHaveLength(1)
    expect(results.map((result) => result.code)).toContain('AlreadyRunning')
    const won = results.findIndex((result) => result.pid !== undefined)
    expect((await hostOf(root).launchRecord(uid))?.launchId).toBe(`l-${won}`)
  })

  test.each([1, 2, 3])('with a run directory each start one QEMU (%i)', async () => {
    const other = mkdtempSync(join(tmpdir(), 'pv-'))
    onTestFinished(() => rmSync(other, { recursive: true, force: true }))
    const results = await racing([root, other])
    expect(results.filter((result) => result.pid !== undefined)).toHaveLength(1)
    expect(results.map((result) => result.code)).toContain('AlreadyRunning')
  })

  test('whose QEMU is of another run directory keep the machine from being started, and have nothing of ours', async () => {
    const other = mkdtempSync(join(tmpdir(), 'pv-'))
    onTestFinished(() => rmSync(other, { recursive: true, force: true }))
    const [ours, theirs] = [hostOf(root), hostOf(other)]
    const { pid } = await theirs.launch(request())
    qemus.push(pid)
    mkdirSync(vmPaths(root, uid).dir, { recursive: true })
    await expect(ours.launch(request())).rejects.toMatchObject({ code: 'AlreadyRunning' })
    await ours.cleanup(uid)
    expect(existsSync(vmPaths(root, uid).dir)).toBe(false)
    expect(existsSync(vmPaths(other, uid).launch)).toBe(true)
    await expect(theirs.cleanup(uid)).rejects.toMatchObject({ code: 'StillRunning' })
  })
})

test('who asks for a launch is asked once more right before the fork: what that throws ends it', async () => {
  const host = hostOf(root)
  const asked: boolean[] = []
  const mayStart = () => {
    // Everything else is done.
    asked.push(existsSync(vmPaths(root, uid).launch))
    throw new PlasmaError('LeaseLost', 'the lease was lost')
  }
  await expect(host.launch({ ...request(), mayStart })).rejects.toMatchObject({ code: 'LeaseLost' })
  expect(asked).toEqual([true])
  expect((await host.scan()).processes.some((found) => found.uid === uid)).toBe(false)
})

describe('a QEMU that /proc does not show', () => {
  test('is known by its sockets: they are left alone and nothing is started', async () => {
    const host = hostOf(root)
    const paths = vmPaths(root, uid)
    mkdirSync(paths.dir, { recursive: true })
    const server = createServer().listen(paths.console)
    await once(server, 'listening')
    await expect(host.launch(request())).rejects.toMatchObject({ code: 'AlreadyRunning', message: /console/ })
    await expect(host.cleanup(uid)).rejects.toMatchObject({ code: 'StillRunning' })
    expect(existsSync(paths.console)).toBe(true)
    server.close()
    await once(server, 'close')
    await host.cleanup(uid)
    expect(existsSync(paths.dir)).toBe(false)
  })

  test.runIf(privileged)('is safe from a server in another PID namespace', async () => {
    const identity = await hostOf(root).launch(request())
    qemus.push(identity.pid)
    const { qmp } = vmPaths(root, uid)
    await expect.poll(() => existsSync(qmp)).toBe(true)
    const script = join(import.meta.dirname, 'launch-child.ts')
    const ask = `import { fork } from 'node:child_process'
      const child = fork(${JSON.stringify(script)}, ${JSON.stringify([root, uid, 'l-2'])}, { execArgv: [] })
      child.once('message', () => {
        child.once('message', (answer) => { console.log(JSON.stringify(answer)); child.kill() })
        child.send('go')
      })`
    const args = ['--pid', '--fork', '--mount-proc', process.execPath, '--input-type=module', '-e', ask]
    const answer = JSON.parse(execFileSync('unshare', args, { encoding: 'utf8' }))
    expect(answer).toMatchObject({ code: 'AlreadyRunning' })
    expect((await hostOf(root).launchRecord(uid))?.launchId).toBe('l-1')
    const socket = connect(qmp)
    const [greeting] = await once(socket, 'data')
    socket.destroy()
    expect(String(greeting)).toContain('QMP')
  })
})

test('a huge command line of somebody else does not stop us from looking', async () => {
  const host = hostOf(root)
  const words = 'ulimit -s unlimited && exec sh -c "read x" $(seq -f %0120000.f 1 40)'
  const other = spawn('sh', ['-c', words])
  children.push(other)
  const length = () => readFileSync(`/proc/${other.pid}/cmdline`).length
  await expect.poll(length, { timeout: 20_000 }).toBeGreaterThan(4 << 20)
  expect((await host.scan()).incomplete).toBeUndefined()
})
