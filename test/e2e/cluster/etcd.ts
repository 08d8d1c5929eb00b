import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { within } from './processes.ts'

/** Where a member runs. */
export interface Place {
  /** Network namespace. */
  readonly namespace: string
  readonly address: string
}

const readyMs = 60_000

/** One etcd process in a network namespace; outside of its host's process tree, so that either can be killed alone. */
export class Member {
  readonly endpoint: string
  readonly #place: Place
  readonly #args: readonly string[]
  #process: ChildProcess | undefined

  constructor(place: Place, endpoint: string, args: readonly string[]) {
    this.#place = place
    this.endpoint = endpoint
    this.#args = args
  }

  start(): void {
    if (this.#process) return
    // It ends with the tests, however those end.
    const under = ['--pdeathsig', 'KILL', '--', 'nsenter', `--net=/run/netns/${this.#place.namespace}`, '--']
    const child = spawn('setpriv', [...under, 'etcd', ...this.#args], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (data) => {
      said = `${said}${data}`.slice(-2_000)
    })
    child.on('exit', (code) => {
      if (code) process.stderr.write(`etcd ended with ${code}: ${said}\n`)
    })
    this.#process = child
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name)
  }

  /** Without any last word; resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }

  /** Resolves once it serves with a quorum. @throws Error after a minute */
  async serving(): Promise<void> {
    let last: unknown
    for (const end = performance.now() + readyMs; performance.now() < end; ) {
      try {
        await this.ctl('endpoint', 'health')
        return
      } catch (error) {
        last = error
      }
    }
    throw new Error(`etcd at ${this.endpoint} does not serve; is etcd-server installed?`, { cause: last })
  }

  /** etcdctl against this member, in its own network. @returns what it printed */
  ctl(...args: string[]): Promise<string> {
    const options = [`--endpoints=${this.endpoint}`, '--command-timeout=2s', '--dial-timeout=1s']
    return within(this.#place.namespace, 'env', 'ETCDCTL_API=3', 'etcdctl', ...options, ...args)
  }
}

/** A real etcd of one member for each place, its data in memory, with etcd's own timeouts. */
export class Etcd {
  readonly members: readonly Member[]
  readonly #folder: string

  private constructor(members: readonly Member[], folder: string) {
    this.members = members
    this.#folder = folder
  }

  static async start(places: readonly Place[]): Promise<Etcd> {
    const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'pvmc-etcd-'))
    const peers = places.map(({ address }, i) => `http://${address}:${2480 + i}`)
    const cluster = peers.map((peer, i) => `m${i}=${peer}`).join(',')
    const members = places.map((place, i) => {
      const client = `http://${place.address}:${2380 + i}`
      const peer = peers[i] ?? ''
      return new Member(place, client, [
        ...[
          '--name',
          `m${i}`,
          '--data-dir',
          join(folder, `m${i}`),
          '--logger',
          'zap',
          '--log-level',
          'fatal',
        ],
        ...['--listen-client-urls', client, '--advertise-client-urls', client, '--initial-cluster', cluster],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ])
    })
    const etcd = new Etcd(members, folder)
    etcd.start()
    await etcd.serving()
    return etcd
  }

  get endpoints(): string {
    return this.members.map(({ endpoint }) => endpoint).join(',')
  }

  start(): void {
    for (const member of this.members) member.start()
  }

  async serving(): Promise<void> {
    await Promise.all(this.members.map((member) => member.serving()))
  }

  async kill(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()))
  }

  async close(): Promise<void> {
    await this.kill()
    await rm(this.#folder, { recursive: true, force: true })
  }
}
