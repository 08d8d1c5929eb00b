import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { freePort } from '../../src/drill/lab.ts'
import { qemuArgs } from '../../src/host/qemu-args.ts'
import { goldenInput, goldenSpecs, machine } from './machines.ts'
import { blankFile, NbdServer } from './nbd-server.ts'

let root: string
let child: ChildProcess | undefined

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'pv-'))
})

afterEach(() => {
  child?.kill('SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

/** The least that QEMU takes for a Linux kernel: the header of the x86 boot protocol (Documentation/arch/x86/boot.rst). */
function kernelHeader(): Buffer {
  const image = Buffer.alloc(16_384)
  image[0x1f1] = 1
  image.writeUInt16LE(0xaa55, 0x1fe)
  image.write('HdrS', 0x202)
  image.writeUInt16LE(0x020c, 0x206)
  image[0x211] = 1
  image.writeUInt32LE(0x100000, 0x214)
  image.writeUInt32LE(0x7fffffff, 0x22c)
  image.writeUInt32LE(2047, 0x238)
  return image
}

function makeFiles(name: string, dataDir: string): void {
  const { vm } = goldenInput(name, { runDir: root, dataDir, firmware: '' })
  for (const disk of vm.spec.disks) {
    const path = join(dataDir, `${disk.name}.${disk.format}`)
    execFileSync('qemu-img', ['create', '-q', '-f', disk.format, path, '16M'])
  }
  writeFileSync(join(dataDir, 'cloud-init.raw'), Buffer.alloc(65_536))
  writeFileSync(join(dataDir, 'kernel'), kernelHeader())
  writeFileSync(join(dataDir, 'initrd'), Buffer.alloc(4096))
  copyFileSync('/usr/share/OVMF/OVMF_VARS_4M.fd', join(dataDir, 'efi-vars.raw'))
}

/** Starts QEMU and resolves once it answers `query-status` on its own socket; rejects with what it wrote. */
async function statusOf(args: readonly string[], socket: string): Promise<unknown> {
  const qemu = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] })
  child = qemu
  let output = ''
  let ended = false
  qemu.stderr.on('data', (chunk) => {
    output += chunk
  })
  qemu.on('exit', () => {
    ended = true
  })
  const answer = await expect
    .poll(() => ask(socket), { timeout: 20_000, interval: 50 })
    .toBeDefined()
    .then(
      () => ask(socket),
      (error: unknown) => Promise.reject(new Error(output || String(error))),
    )
  if (ended) throw new Error(output)
  return answer
}

function ask(socket: string): Promise<unknown> {
  return new Promise((resolve) => {
    let text = ''
    const monitor = connect(socket)
    monitor.on('error', () => resolve(undefined))
    monitor.on('connect', () => monitor.write('{"execute":"qmp_capabilities"}{"execute":"query-status"}'))
    monitor.on('data', (chunk) => {
      text += chunk
      const line = text.split('\r\n').find((candidate) => candidate.includes('"status"'))
      if (line === undefined) return
      monitor.destroy()
      resolve(JSON.parse(line).return)
    })
  })
}

// The servers of the golden exports do not exist.
const startable = Object.keys(goldenSpecs).filter((name) => name !== 'nbd')

test.each(startable)('QEMU starts as %s says, and waits', async (name) => {
  const folder = name === 'quoting' ? join(root, `a, "b" c's,,d=e`) : root
  const places = { runDir: folder, dataDir: folder, firmware: '/usr/share/OVMF/OVMF_CODE_4M.fd' }
  const input = goldenInput(name, places)
  mkdirSync(input.paths.dir, { recursive: true })
  makeFiles(name, folder)
  expect(await statusOf(qemuArgs(input), input.paths.qmp)).toMatchObject({
    status: 'prelaunch',
    running: false,
  })
})

test('QEMU opens exports whatever they are called, over IPv4 and IPv6', async () => {
  const golden = machine(goldenSpecs['nbd']).spec.disks.flatMap(({ nbd }) => (nbd ? [nbd] : []))
  const servers: NbdServer[] = []
  try {
    const disks = await Promise.all(
      golden.map(async ({ exportName }, i) => {
        const [host, port] = [i % 2 ? '::1' : '127.0.0.1', await freePort()]
        const server = new NbdServer({
          ...{ file: blankFile(join(root, `${i}.raw`), 65_536), exportName, port, bind: host },
        })
        servers.push(server)
        server.start()
        return { name: `d${i}`, format: 'raw', nbd: { host, port, exportName } }
      }),
    )
    const places = { runDir: join(root, 'run'), dataDir: root, firmware: '' }
    const input = { ...goldenInput('pc', places), vm: machine({ machine: 'pc', disks }) }
    mkdirSync(input.paths.dir, { recursive: true })
    const paths = new Map(disks.map(({ name }) => [name, 'nbd:']))
    // A server that does not listen yet is waited for.
    expect(await statusOf(qemuArgs({ ...input, disks: paths }), input.paths.qmp)).toMatchObject({
      status: 'prelaunch',
    })
  } finally {
    for (const server of servers) await server.kill()
  }
})
