import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { memberArgs } from '../../src/drill/cluster/etcd.ts'
import { stopProcess } from './stopped.ts'

const run = promisify(execFile)

/** Files of a certificate authority, and of one who is certified by it. */
export interface CertFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export interface EtcdLabOptions {
  readonly members?: number
  /** Clients must come with a certificate. */
  readonly tls?: CertFiles
  readonly args?: readonly string[]
  /** Its data on a disk, where it would otherwise be in memory. */
  readonly onDisk?: boolean
}

/** Longest wait for a member to serve. */
const readyMs = 20_000

/** Ports of loopback that nobody listens on. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

/** Makes the data of a member, which has none, from a snapshot. `args` are what it is started with, `more` is for etcdctl. */
export async function restoreSnapshot(
  snapshot: string,
  args: readonly string[],
  more: readonly string[] = [],
): Promise<void> {
  const kept = ['--name', '--data-dir', '--initial-cluster', '--initial-advertise-peer-urls']
  const own = kept.flatMap((flag) => [flag, args[args.indexOf(flag) + 1] ?? ''])
  const env = { ...process.env, ETCDCTL_API: '3' }
  await run('etcdctl', ['snapshot', 'restore', snapshot, ...own, ...more], {
    env,
  })
}

/** One real etcd process on loopback, with a data directory of its own. */
export class EtcdMember {
  readonly endpoint: string
  readonly #args: readonly string[]
  readonly #health: string
  readonly #folder: string
  #process: ChildProcess | undefined

  constructor(endpoint: string, health: string, folder: string, args: readonly string[]) {
    this.endpoint = endpoint
    this.#folder = folder
    this.#health = health
    this.#args = args
  }

  /** Starts it, with more arguments where given; `serving` waits for it. */
  start(more: readonly string[] = []): void {
    // It dies with who started it, however that one dies.
    const args = ['--pdeathsig', 'KILL', '--', 'etcd', ...this.#args, ...more]
    const child = spawn('setpriv', args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (data) => {
      said = `${said}${data}`.slice(-2_000)
    })
    child.on('error', (error) => {
      said += error.message
    })
    child.on('exit', (code) => {
      if (code) process.stderr.write(`etcd ended with ${code}: ${said}\n`)
    })
    this.#process = child
    running.add(child)
  }

  /** Resolves once it has a leader and answers. */
  async serving(): Promise<void> {
    for (const end = performance.now() + readyMs; performance.now() < end; ) {
      const health = await fetch(`${this.#health}/health`, { signal: AbortSignal.timeout(1_000) })
        .then((answer) => answer.text())
        .catch(() => '')
      if (/"health": *"true"/.test(health)) return
      await pause(30)
    }
    throw new Error(`etcd at ${this.endpoint} does not serve; is etcd-server installed?`)
  }

  /** Whether this member leads. */
  async leads(): Promise<boolean> {
    return /^etcd_server_is_leader 1$/m.test(await this.#metrics())
  }

  /** Transactions that it has answered, whether anybody heard the answer or not. */
  async transactions(): Promise<number> {
    const counts = (await this.#metrics()).matchAll(/^grpc_server_handled_total\{.*"Txn".*\} (\d+)$/gm)
    return [...counts].reduce((sum, [, count]) => sum + Number(count), 0)
  }

  async #metrics(): Promise<string> {
    const answer = await fetch(`${this.#health}/metrics`, { signal: AbortSignal.timeout(2_000) })
    return answer.text()
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name)
  }

  /** Open and alive, and it does not answer from when this resolves. */
  async pause(): Promise<void> {
    if (this.#process?.pid !== undefined) await stopProcess(this.#process.pid)
  }

  resume(): void {
    this.signal('SIGCONT')
  }

  /** Without any last word; resolves when it is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM')
  }

  /** Loses all its data. */
  async wipe(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** Has the data of a snapshot instead of its own, as a cluster of one. */
  async restore(snapshot: string): Promise<void> {
    await this.wipe()
    await restoreSnapshot(snapshot, this.#args)
  }

  async #end(name: NodeJS.Signals): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill(name)
    child.kill('SIGCONT')
    await gone
    running.delete(child)
  }
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** A real etcd: one member or a cluster of them. */
export class EtcdLab {
  readonly members: readonly EtcdMember[]
  readonly #folder: string
  readonly #tls: CertFiles | undefined

  private constructor(members: readonly EtcdMember[], folder: string, tls: CertFiles | undefined) {
    this.members = members
    this.#folder = folder
    this.#tls = tls
  }

  static async start(options: EtcdLabOptions = {}): Promise<EtcdLab> {
    const { members: count = 1, tls } = options
    // In memory where that is possible: these tests are about processes and connections, not about disks.
    const memory = !options.onDisk && existsSync('/dev/shm')
    const folder = await mkdtemp(join(memory ? '/dev/shm' : tmpdir(), 'plasmavmc-etcd-'))
    const ports = await freePorts(count * 3)
    const peer = (i: number) => `http://127.0.0.1:${ports[i * 3]}`
    const cluster = Array.from({ length: count }, (_, i) => `m${i}=${peer(i)}`).join(',')
    const members = Array.from({ length: count }, (_, i) => {
      const client = `${tls ? 'https' : 'http'}://127.0.0.1:${ports[i * 3 + 1]}`
      const health = `http://127.0.0.1:${ports[i * 3 + 2]}`
      const name = `m${i}`
      return new EtcdMember(client, health, join(folder, name), [
        ...memberArgs({ name, folder, client, peer: peer(i), cluster }),
        ...['--listen-metrics-urls', health],
        ...(tls ? ['--cert-file', tls.cert, '--key-file', tls.key, '--trusted-ca-file', tls.ca] : []),
        ...(tls ? ['--client-cert-auth'] : []),
        ...(options.args ?? []),
      ])
    })
    const lab = new EtcdLab(members, folder, tls)
    for (const member of members) member.start()
    await lab.serving()
    return lab
  }

  /** Resolves once every member serves. */
  async serving(): Promise<void> {
    await Promise.all(this.members.map((member) => member.serving()))
  }

  get endpoints(): string[] {
    return this.members.map(({ endpoint }) => endpoint)
  }

  async leader(): Promise<EtcdMember> {
    for (const member of this.members) if (await member.leads().catch(() => false)) return member
    throw new Error('etcd has no leader')
  }

  /** How many of the others think that they lead. */
  async leaders(except: EtcdMember): Promise<number> {
    const others = this.members.filter((member) => member !== except)
    const leading = await Promise.all(others.map((member) => member.leads().catch(() => false)))
    return leading.filter(Boolean).length
  }

  /** etcdctl against all members. @returns what it says */
  async ctl(...args: string[]): Promise<string> {
    const { ca, cert, key } = this.#tls ?? {}
    const tls = this.#tls ? [`--cacert=${ca}`, `--cert=${cert}`, `--key=${key}`] : []
    const env = { ...process.env, ETCDCTL_API: '3' }
    const { stdout } = await run('etcdctl', [`--endpoints=${this.endpoints.join(',')}`, ...tls, ...args], {
      env,
    })
    return stdout
  }

  async close(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()))
    await rm(this.#folder, { recursive: true, force: true })
  }
}
