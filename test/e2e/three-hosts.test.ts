import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePorts } from '../fakes/etcd-server.ts'
import { Lab, program, type Ran } from './lab.ts'
import { endGuards } from './proc.ts'

/** The hosts of docs/cluster.md, on three addresses of loopback. */
const hosts = { a: '127.0.0.1', b: '127.0.0.2', c: '127.0.0.3' } as const
type Name = keyof typeof hosts
const names = Object.keys(hosts) as Name[]

const dir = mkdtempSync(join(tmpdir(), 'pve3-'))
const own: ChildProcess[] = []
let ports: readonly number[]
// Only for its ways to run a program and to wait.
let lab: Lab

const addressesOf = (text: string) =>
  text
    .replaceAll('192.0.2.', '127.0.0.')
    .replaceAll(':2379', `:${ports[0]}`)
    .replaceAll(':2380', `:${ports[1]}`)
    .replaceAll(':7443', `:${ports[2]}`)

/** /etc/default/etcd of a host, as the walk-through has it edited. */
function etcdEnv(name: Name): Record<string, string> {
  const text = addressesOf(readFileSync('deploy/cluster/etcd.env', 'utf8'))
    .replaceAll('/etc/etcd/', `${join(dir, 'certs', name)}/`)
    .replace('/var/lib/etcd/default', join(dir, name, 'etcd'))
  const lines = text.split('\n').filter((line) => /^ETCD_/.test(line))
  const pairs = lines.map((line): [string, string] => {
    const at = line.indexOf('=')
    const [key, value] = [line.slice(0, at), line.slice(at + 1)]
    if (key === 'ETCD_NAME') return [key, name]
    // Members share loopback here: there is one 127.0.0.1 for all.
    if (key === 'ETCD_LISTEN_CLIENT_URLS') return [key, `https://${hosts[name]}:${ports[0]}`]
    return [key, /LISTEN|ADVERTISE/.test(key) ? value.replaceAll('127.0.0.1', hosts[name]) : value]
  })
  return Object.fromEntries(pairs)
}

function start(command: string, args: readonly string[], env: Record<string, string>): void {
  const all = ['--pdeathsig', 'KILL', '--', command, ...args]
  const log = openSync(join(dir, `${own.length}.log`), 'a')
  const child = spawn('setpriv', all, {
    stdio: ['ignore', log, log],
    env: { PATH: process.env['PATH'] ?? '', ...env },
  })
  closeSync(log)
  own.push(child)
}

const cli = (name: Name, ...args: readonly string[]): Promise<Ran> =>
  lab.run(program, [...args, '--server', `${hosts[name]}:${ports[2]}`, '--data-dir', join(dir, 'a', 'data')])

function serve(name: Name): void {
  const yaml = addressesOf(readFileSync('deploy/cluster/plasmavmc.yaml', 'utf8'))
    .replaceAll('/etc/plasmavmc/', `${join(dir, 'certs', name)}/`)
    .replace(/^hostName: .*$/m, `hostName: ${name}`)
    .replace(/^listen: .*$/m, `listen: ${hosts[name]}:${ports[2]}`)
  const config = join(dir, `${name}.yaml`)
  // They share loopback here, and would share the port of every address.
  writeFileSync(config, `${yaml}peerListen: ${hosts[name]}:${ports[2]}\n`)
  const place = ['--data-dir', join(dir, name, 'data'), '--run-dir', join(dir, name, 'run')]
  start(program, ['serve', ...place], { PLASMAVMC_CONFIG: config })
}

const shows = async (name: Name, wanted: readonly Name[]) => {
  const { stdout } = await cli(name, 'get', 'hosts', '--no-headers')
  const seen = stdout.split('\n').filter((line) => /^\w+ +Ready/.test(line))
  return seen.map((line) => line.split(' ')[0]).join() === wanted.join()
}

beforeAll(async () => {
  ports = await freePorts(3)
  lab = await Lab.start()
})
afterAll(async () => {
  const running = own.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
  await Promise.all(
    running.map(async (child) => {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }),
  )
  endGuards(dir)
  await lab?.close()
  rmSync(dir, { recursive: true, force: true })
})

test('the files of deploy/cluster make a cluster, whose servers all answer to one key', {
  timeout: 300_000,
}, async () => {
  const pairs = names.map((name) => `${name}=${hosts[name]}`)
  const made = await lab.run('sh', ['deploy/cluster/certificates.sh', join(dir, 'certs'), ...pairs])
  expect(made).toMatchObject({ code: 0, stderr: '' })
  for (const name of names) {
    mkdirSync(join(dir, name), { recursive: true })
    start('etcd', [], etcdEnv(name))
  }
  serve('a')
  await lab.until('a serves', () => shows('a', ['a']))
  const ofA = join(dir, 'a', 'data')
  for (const name of ['b', 'c'] as const) {
    const data = join(dir, name, 'data')
    mkdirSync(join(data, 'pki'), { recursive: true, mode: 0o700 })
    for (const file of ['credentials', 'pki/ca.crt', 'pki/ca.key']) cpSync(join(ofA, file), join(data, file))
    serve(name)
  }
  for (const name of names) await lab.until(`${name} shows all`, () => shows(name, names))
  expect(await cli('b', 'cordon', 'c')).toMatchObject({ code: 0, stdout: 'host.plasmavmc.io/c cordoned\n' })
  expect((await cli('c', 'get', 'hosts')).stdout).toMatch(/^c +\S*SchedulingDisabled/m)
})

test('certificates that are there stay; one more host gets its own from the same CA', async () => {
  const folder = join(dir, 'more')
  const run = (...pairs: string[]) => lab.run('sh', ['deploy/cluster/certificates.sh', folder, ...pairs])
  await run('a=192.0.2.1')
  const before = readFileSync(join(folder, 'a', 'etcd.crt'), 'utf8')
  expect((await run('a=192.0.2.1', 'd=192.0.2.4')).code).toBe(0)
  expect(readFileSync(join(folder, 'a', 'etcd.crt'), 'utf8')).toBe(before)
  const checked = await lab.run('openssl', [
    'verify',
    '-CAfile',
    join(folder, 'a', 'ca.crt'),
    join(folder, 'd', 'etcd.crt'),
  ])
  expect(checked.stdout).toContain('OK')
  expect((await run()).code).toBe(2)
})
