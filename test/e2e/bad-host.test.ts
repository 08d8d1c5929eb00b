import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Lab, machinesPath, program, type Ran, tiny } from './lab.ts'

let lab: Lab

beforeAll(async () => {
  lab = await Lab.start()
})
afterAll(() => lab.close())

function file(name: string, content: string | Buffer): string {
  const path = join(lab.dir, name)
  writeFileSync(path, content)
  return path
}

describe('a server that can’t start says why and exits with 1', () => {
  const own = () => [
    '--data-dir',
    join(lab.dir, 'd2'),
    '--run-dir',
    join(lab.dir, 'r2'),
    '--listen',
    '127.0.0.1:0',
  ]
  const failing = async (...flags: readonly string[]): Promise<Ran> => {
    const ran = await lab.cli('serve', ...own(), ...flags)
    expect(ran).toMatchObject({ code: expect.toBeOneOf([1, 2]), stdout: '' })
    return ran
  }

  test('a taken port', async () => {
    const ran = await failing('--listen', lab.address)
    expect(ran).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`--listen: ${lab.address} is in use`),
    })
  })

  test('a data directory in use', async () => {
    expect(await failing('--data-dir', lab.dataDir)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(new RegExp(`in use by .*${lab.serverPid}`)),
    })
  })

  test('a run directory in use, whatever its data directory', async () => {
    expect(await failing('--run-dir', lab.runDir)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        new RegExp(`${lab.runDir} is in use by the process ${lab.serverPid}[^]*--run-dir`),
      ),
    })
  })

  test.each(['--data-dir', '--run-dir'])('%s that is no folder', async (flag) => {
    const path = file('a-file', '')
    const first = await failing(flag, path)
    expect(first.stderr).toContain(`${flag}: ${path} can't be used: it is a file, not a folder`)
    // Where no folder can be made, Node's own recursive mkdir never ends.
    const second = await failing(flag, '/proc/plasmavmc')
    expect(second.stderr).toContain(`${flag}: /proc/plasmavmc can't be used`)
  })

  test('settings that make no sense', async () => {
    const config = file('config.yaml', 'listen: [\n')
    expect(await failing('--config', config)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/line 2, column 1/),
    })
    expect((await failing('--log-level', 'loud')).stderr).toContain(
      '--log-level: must be debug, info, warn or error',
    )
    expect((await failing('--listen', 'nowhere')).stderr).toContain('--listen: must be host:port')
  })
})

test('a host whose QEMU is missing or too old says so, and so does its machine', async () => {
  const old = file('qemu-old', '#!/bin/sh\necho QEMU emulator version 4.2.1\n')
  chmodSync(old, 0o755)
  const other = await Lab.start({ flags: ['--qemu', old] })
  try {
    const told = /qemu-old is QEMU 4\.2\.1; 7\.0 or newer is needed/
    await other.until('the host says so', async () =>
      told.test((await other.cli('describe', 'host', 'lab')).stdout),
    )
    expect((await other.cli('get', 'hosts')).stdout).toMatch(/^lab +NotReady,QemuUnusable /m)
    await other.create(tiny('a'))
    await other.sees('a', 'says so', ({ status }) => told.test(status?.lastExit?.message ?? ''))
    await other.restart('SIGTERM', { flags: ['--qemu', '/none/qemu'] })
    await other.sees('a', 'misses QEMU', ({ status }) =>
      /\/none\/qemu is no/.test(status?.lastExit?.message ?? ''),
    )
  } finally {
    await other.close()
  }
})

test('a full disk: writes are refused, nothing is lost, and it goes on when there is space', async () => {
  const other = await Lab.start()
  try {
    await other.end('SIGTERM')
    rmSync(other.dataDir, { recursive: true })
    mkdirSync(other.dataDir)
    // Only root makes a file system of its own: anybody else learns it from mount.
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', other.dataDir])
    await other.serve()
    await fillAndGoOn(other)
  } finally {
    await other.end()
    execFileSync('umount', [other.dataDir])
    await other.close()
  }
})

const readyz = (other: Lab) => other.client.text('GET', '/readyz').catch(String)

/** With not a page left: whoever asks is told, keys are refused as everything is, and the log is one of JSON. */
async function tellsOfIt(other: Lab): Promise<void> {
  const full = join(other.dataDir, 'full')
  expect(() => writeFileSync(full, Buffer.alloc(16 * 1024 ** 2))).toThrow(/ENOSPC/)
  const key = await other.cli('key', 'create', 'somebody')
  expect(key.stderr).toMatch(/ServiceUnavailable.*the store can't be written: [a-z/ ]+ \(is the disk/)
  await other.until('it says that it is not ready', async () =>
    /\[-\]store failed: the store can't be written: no space left on device/.test(await readyz(other)),
  )
  expect(await other.client.text('GET', '/metrics')).toMatch(/^plasmavmc_store_available 0$/m)
  for (const line of readFileSync(join(other.dir, 'server.log'), 'utf8').split('\n'))
    expect(line).toMatch(/^$|^plasmavmc |^\{.*\}$|^Write error: [^{]*$/)
}

/** Nothing that the store could make smaller. */
const large = () => randomBytes(150_000).toString('base64')

async function fillAndGoOn(other: Lab): Promise<void> {
  const listed = async () => {
    const list = await other.client.json<{ items: { metadata: { name: string } }[] }>('GET', machinesPath)
    return list.items.map((vm) => vm.metadata.name).sort()
  }
  await other.create(tiny('alive'))
  const { status } = await other.running('alive')
  const made = ['alive']
  let refused: unknown
  while (refused === undefined && made.length < 90) {
    const name = `big-${made.length}`
    const spec = { runStrategy: 'Halted', cloudInit: { userData: large() } }
    try {
      await other.create(tiny(name, spec))
      made.push(name)
    } catch (error) {
      refused = error
    }
  }
  expect(refused).toMatchObject({ code: 'ServiceUnavailable', status: { code: 503 } })
  expect(String(refused)).toMatch(/can't be written.*full or read-only/)
  const cli = await other.run(
    program,
    ['apply', '-f', '-'],
    JSON.stringify(tiny('late', { runStrategy: 'Halted', cloudInit: { userData: large() } })),
  )
  expect(cli).toMatchObject({ code: 1, stderr: expect.stringContaining('ServiceUnavailable') })
  expect(await listed()).toEqual([...made].sort())
  expect((await other.vm('alive')).status?.process).toMatchObject({ pid: status?.process?.pid })
  await tellsOfIt(other)

  execFileSync('mount', ['-o', 'remount,size=64m', other.dataDir])
  await other.until('it is ready again by itself', async () => (await readyz(other)) === 'ok')
  await other.create(tiny('after', { runStrategy: 'Halted' }))
  await other.restart('SIGKILL')
  expect(await listed()).toEqual([...made, 'after'].sort())
  expect(await other.running('alive')).toMatchObject({ status: { process: { pid: status?.process?.pid } } })
}
