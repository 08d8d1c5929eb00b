import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseQemuVersion } from '../../src/host/host-facts.ts'
import { type VmPaths, vmPaths } from '../../src/host/paths.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { qemuArgs } from '../../src/host/qemu-args.ts'
import { scanProcesses } from '../../src/host/scan.ts'
import { machine } from '../host/machines.ts'
import { type Behaviour, scriptDir, scriptPath } from './qemu/script.ts'
import { RawQmp } from './raw-qmp.ts'

const qemus = [
  ['the fake QEMU', resolve('test/fakes/qemu-system-fake')],
  ['the real QEMU', 'qemu-system-x86_64'],
] as const

interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly output: string
}

interface Running {
  readonly pid: number
  readonly ended: Promise<Ended>
}

let root: string
let uid: string
let paths: VmPaths
const children: ChildProcess[] = []
const clients: RawQmp[] = []

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'fq-'))
  uid = randomUUID()
  paths = vmPaths(join(root, 'run'), uid)
  mkdirSync(paths.dir, { recursive: true })
})

afterEach(() => {
  for (const client of clients.splice(0)) client.close()
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

function argsOf(spec: Record<string, unknown>): string[] {
  const vm = machine({ memory: '64Mi', ...spec }, uid)
  const disks = new Map(vm.spec.disks.map(({ name, path = '' }) => [name, path]))
  return qemuArgs({ vm, launchId: 'l-1', epoch: 0, paths, disks, accelerator: 'tcg' })
}

function start(binary: string, args = argsOf({})): Running {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output += chunk
    })
  const ended = new Promise<Ended>((done) => {
    child.once('close', (code, signal) => done({ code, signal, output }))
  })
  return { pid: child.pid!, ended }
}

async function client(): Promise<RawQmp> {
  const opened = await RawQmp.open(paths.qmp)
  clients.push(opened)
  return opened
}

/** How the fake behaves at its next launch. */
function writeScript(behaviour: Behaviour): void {
  mkdirSync(scriptDir(join(root, 'run')))
  writeFileSync(scriptPath(join(root, 'run'), uid), JSON.stringify([behaviour]))
}

/** Puts a driver that fails every read below the disk: the firmware's look for something to boot does the rest. */
function withReadErrors(args: readonly string[]): string[] {
  const file = args.findIndex((arg) => arg.includes('"driver":"file"'))
  const below = (args[file] ?? '').replace('"file-root"', '"below"')
  const errors = [{ event: 'read_aio', errno: 28 }]
  const failing = { driver: 'blkdebug', 'node-name': 'file-root', image: 'below', 'inject-error': errors }
  const rest = args.slice(file + 1)
  return [...args.slice(0, file), below, '-blockdev', JSON.stringify(failing), ...rest]
}

/** The firmware must have set up the ports first: said again until the guest has shut down. */
async function shutDownFromInside(qmp: RawQmp): Promise<void> {
  await expect
    .poll(async () => (await qmp.human('o/w 0x604 0x2000')) && (await qmp.status()), { timeout: 40_000 })
    .toBe('shutdown')
}

describe.each(qemus)('%s', (_, binary) => {
  test('names its version', () => {
    const output = execFileSync(binary, ['--version']).toString()
    expect(parseQemuVersion(output)).toMatch(/^7\.2/)
  })

  test('is found by its command line, and its pidfile names it', async () => {
    const { pid } = start(binary)
    await client()
    const { processes } = scanProcesses(new Procfs(), 'boot')
    expect(processes.filter((found) => found.uid === uid)).toEqual([
      expect.objectContaining({ pid, name: 'shop/web', launchId: 'l-1', runDir: join(root, 'run') }),
    ])
    expect(readFileSync(paths.pidfile, 'utf8')).toBe(`${pid}\n`)
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toBe('qemu-system-x86\n')
  })

  test('greets, and negotiates before anything else and once', async () => {
    start(binary)
    const qmp = await RawQmp.connect(paths.qmp)
    clients.push(qmp)
    expect(await qmp.next(() => true)).toMatchObject({
      QMP: { version: { qemu: { major: 7, minor: 2 } }, capabilities: ['oob'] },
    })
    const early = { class: 'CommandNotFound', desc: expect.stringContaining('Expecting capabilities') }
    expect(await qmp.ask('query-status')).toEqual({ error: early })
    expect(await qmp.ask('qmp_capabilities', { enable: ['oob'] })).toEqual({ return: {} })
    const again = { class: 'CommandNotFound', desc: expect.stringContaining('already complete') }
    expect(await qmp.ask('qmp_capabilities')).toEqual({ error: again })
    expect(await qmp.ask('query-version')).toMatchObject({ return: { qemu: { major: 7, minor: 2 } } })
  })

  test('refuses with the class and words of QAPI', async () => {
    start(binary)
    const qmp = await client()
    const refusals: readonly (readonly [string, Record<string, unknown> | undefined, string, string])[] = [
      ['nope', undefined, 'CommandNotFound', 'The command nope has not been found'],
      ['query-status', { a: 1 }, 'GenericError', "Parameter 'a' is unexpected"],
      ['device_del', undefined, 'GenericError', "Parameter 'id' is missing"],
      ['device_del', { id: 'zz' }, 'DeviceNotFound', "Device 'zz' not found"],
      ['device_add', { driver: 'nope' }, 'GenericError', "'nope' is not a valid device model name"],
      [
        'block_resize',
        { 'node-name': 'zz', size: 1 },
        'GenericError',
        "Cannot find device='' nor node-name='zz'",
      ],
      ['set-action', { shutdown: 'zz' }, 'GenericError', "Parameter 'shutdown' does not accept value 'zz'"],
    ]
    for (const [command, args, errorClass, desc] of refusals)
      expect(await qmp.ask(command, args), command).toEqual({ error: { class: errorClass, desc } })
    expect(await qmp.human('zzz')).toEqual({ return: "unknown command: 'zzz'\r\n" })
  })

  test('reads what is no request, and goes on', async () => {
    start(binary)
    const qmp = await client()
    const inputs = [
      ['{bad}', 'JSON parse error'],
      ['not ', 'JSON parse error'],
      ['[1]', 'QMP input must be a JSON object'],
      ['{"id":5}', "QMP input lacks member 'execute'"],
      ['{"execute":"query-status","x":1}', "QMP input member 'x' is unexpected"],
      ['{"exec-oob":"query-status"}', 'The command query-status does not support OOB'],
    ]
    for (const [input = '', words = ''] of inputs) {
      qmp.write(input)
      const error = { class: 'GenericError', desc: expect.stringContaining(words) }
      expect(await qmp.next((message) => 'error' in message)).toMatchObject({ error })
    }
    qmp.write('{"execute":"query-na')
    qmp.write('me"}{"execute":\n"query-uuid"}')
    expect(await qmp.next((message) => 'return' in message)).toEqual({ return: { name: 'shop/web' } })
    expect(await qmp.next((message) => 'return' in message)).toEqual({ return: { UUID: uid } })
  })

  test('prelaunch, running, paused, reset', async () => {
    start(binary)
    const qmp = await client()
    expect(await qmp.ask('query-status')).toEqual({
      return: { status: 'prelaunch', singlestep: false, running: false },
    })
    await qmp.ask('stop')
    expect(await qmp.status()).toBe('prelaunch')
    expect(await qmp.ask('cont')).toEqual({ return: {} })
    await qmp.event('RESUME')
    expect(await qmp.ask('query-status')).toMatchObject({ return: { status: 'running', running: true } })
    expect(await qmp.human('info status')).toEqual({ return: 'VM status: running\r\n' })
    await qmp.human('o/b 0xcf9 0x6')
    await qmp.event('RESET', ({ guest, reason }) => guest === true && reason === 'guest-reset')
    expect(await qmp.status()).toBe('running')
    await qmp.ask('stop')
    await qmp.event('STOP')
    expect(await qmp.status()).toBe('paused')
    expect(await qmp.human('info status')).toEqual({ return: 'VM status: paused\r\n' })
    await qmp.ask('system_reset')
    await qmp.event('RESET', ({ reason }) => reason === 'host-qmp-system-reset')
    expect(await qmp.status()).toBe('prelaunch')
  })

  test('a guest that shuts down stays as shutdown, and only a reset leads out', async () => {
    start(binary)
    const qmp = await client()
    await qmp.ask('cont')
    await qmp.ask('system_powerdown')
    await qmp.event('POWERDOWN')
    await shutDownFromInside(qmp)
    const { data } = await qmp.event('SHUTDOWN')
    expect(data).toEqual({ guest: true, reason: 'guest-shutdown' })
    await qmp.event('STOP')
    const error = { class: 'GenericError', desc: 'Resetting the Virtual Machine is required' }
    expect(await qmp.ask('cont')).toEqual({ error })
    await qmp.ask('stop')
    expect(await qmp.status()).toBe('shutdown')
    await qmp.ask('system_reset')
    await expect.poll(() => qmp.status()).toBe('prelaunch')
    expect(await qmp.ask('cont')).toEqual({ return: {} })
  })

  test('without that it ends', async () => {
    const { ended } = start(binary)
    const qmp = await client()
    expect(await qmp.ask('set-action', { shutdown: 'poweroff' })).toEqual({ return: {} })
    await qmp.ask('cont')
    // The answer to the write that ends it may come or not.
    const tell = () =>
      qmp.write('{"execute":"human-monitor-command","arguments":{"command-line":"o/w 0x604 0x2000"}}')
    const again = setInterval(tell, 100)
    try {
      expect(await ended).toMatchObject({ code: 0 })
    } finally {
      clearInterval(again)
    }
  })

  test('a guest that panics is paused, and can go on', async () => {
    start(binary)
    const qmp = await client()
    await qmp.ask('cont')
    await qmp.human('o/b 0x505 0x1')
    expect((await qmp.event('GUEST_PANICKED'))['data']).toEqual({ action: 'pause' })
    await qmp.event('STOP')
    expect(await qmp.status()).toBe('guest-panicked')
    await qmp.ask('cont')
    expect(await qmp.status()).toBe('running')
  })

  test('a disk that fails stops the guest, is told of and is named, until it goes on', async () => {
    const path = join(root, 'root.raw')
    writeFileSync(path, Buffer.alloc(1 << 20))
    const args = argsOf({ disks: [{ name: 'root', path, format: 'raw' }] })
    const fake = binary.endsWith('-fake')
    if (fake) writeScript({ guest: 'io-error' })
    start(binary, fake ? args : withReadErrors(args))
    const qmp = await client()
    const device = { qdev: expect.stringContaining('/machine/peripheral/disk-root'), device: '' }
    expect(await qmp.ask('query-block')).toMatchObject({ return: [{ ...device, 'io-status': 'ok' }] })
    await qmp.ask('cont')
    const { data } = await qmp.event('BLOCK_IO_ERROR')
    expect(data).toEqual({
      ...{ device: '', 'node-name': 'disk-root', operation: expect.stringMatching(/^(read|write)$/) },
      ...{ action: 'stop', nospace: true, reason: 'No space left on device' },
    })
    await qmp.event('STOP')
    expect(await qmp.status()).toBe('io-error')
    expect(await qmp.ask('query-block')).toMatchObject({ return: [{ ...device, 'io-status': 'nospace' }] })
    expect(await qmp.ask('cont')).toEqual({ return: {} })
    await qmp.event('RESUME')
  })

  test('serves a second client when the first has left, without its negotiation', async () => {
    start(binary)
    const first = await client()
    const second = await RawQmp.connect(paths.qmp)
    clients.push(second)
    await first.ask('cont')
    expect(second.heard).toBe(false)
    first.close()
    expect(await second.next(() => true)).toHaveProperty('QMP')
    expect(await second.ask('query-status')).toMatchObject({ error: { class: 'CommandNotFound' } })
  })

  test('quit: told, answered, code 0, nothing left', async () => {
    const { ended } = start(binary)
    const qmp = await client()
    expect(await qmp.ask('quit')).toEqual({ return: {} })
    expect((await qmp.event('SHUTDOWN'))['data']).toEqual({ guest: false, reason: 'host-qmp-quit' })
    await qmp.closed()
    expect(await ended).toEqual({ code: 0, signal: null, output: '' })
    for (const path of [paths.qmp, paths.console, paths.pidfile]) expect(existsSync(path), path).toBe(false)
  })

  test('SIGTERM ends it in order, SIGKILL leaves its files', async () => {
    const first = start(binary)
    const qmp = await client()
    process.kill(first.pid, 'SIGTERM')
    expect((await qmp.event('SHUTDOWN'))['data']).toEqual({ guest: false, reason: 'host-signal' })
    const { code, output } = await first.ended
    expect(code).toBe(0)
    expect(output).toContain('terminating on signal 15')
    const second = start(binary)
    await client()
    process.kill(second.pid, 'SIGKILL')
    expect(await second.ended).toMatchObject({ code: null, signal: 'SIGKILL' })
    for (const path of [paths.qmp, paths.console, paths.pidfile]) expect(existsSync(path), path).toBe(true)
    start(binary)
    expect(await (await client()).status()).toBe('prelaunch')
  })

  test('a second one on the same pidfile ends at once, and the first goes on', async () => {
    start(binary)
    const qmp = await client()
    const { code, output } = await start(binary).ended
    expect(code).toBe(1)
    expect(output).toMatch(/Cannot lock pid file/i)
    expect(await qmp.status()).toBe('prelaunch')
  })

  test('a pidfile that was removed locks nobody out', async () => {
    start(binary)
    await client()
    rmSync(paths.pidfile)
    clients.splice(0)[0]?.close()
    const second = start(binary)
    await expect
      .poll(() => existsSync(paths.pidfile) && readFileSync(paths.pidfile, 'utf8'))
      .toBe(`${second.pid}\n`)
  })
})
