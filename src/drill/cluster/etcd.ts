import { closeSync, existsSync, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Detached } from '../../host/exec.ts'
import { readIfThere, signal, startWithin, within } from './processes.ts'

/** Where a member runs. */
export interface Place {
  /** Network namespace. */
  readonly namespace: string
  readonly address: string
}

const readyMs = 60_000

export interface MemberOptions {
  readonly name: string
  /** In which the member's data get a folder of its name. */
  readonly folder: string
  /** URL for clients. */
  readonly client: string
  /** URL for the other members. */
  readonly peer: string
  /** All members, as `name=peer,...`. */
  readonly cluster: string
}

/** Arguments of etcd for one member of a cluster, with etcd's own timeouts. */
export function memberArgs({ name, folder, client, peer, cluster }: MemberOptions): string[] {
  const said = { name, 'data-dir': join(folder, name), logger: 'zap', 'log-level': 'fatal' }
  const urls = {
    'listen-client-urls': client,
    'advertise-client-urls': client,
    'listen-peer-urls': peer,
    'initial-advertise-peer-urls': peer,
    'initial-cluster': cluster,
  }
  return Object.entries({ ...said, ...urls }).flatMap(([option, value]) => [`--${option}`, value])
}

/** One etcd process in a network namespace; outside of its host's process tree, so that either can be killed alone. */
export class Member {
  readonly endpoint: string
  /** What etcd is started with. */
  readonly args: readonly string[]
  readonly #place: Place
  readonly #log: string
  #process: Detached | undefined

  constructor(place: Place, endpoint: string, args: readonly string[], log: string) {
    this.#place = place
    this.endpoint = endpoint
    this.args = args
    this.#log = log
  }

  /** Starts it, this once with more arguments where some are given. */
  async start(more: readonly string[] = []): Promise<void> {
    if (this.#process) return
    const output = openSync(this.#log, 'a', 0o600)
    try {
      this.#process = await startWithin(this.#place.namespace, ['etcd', ...this.args, ...more], output)
    } finally {
      closeSync(output)
    }
  }

  signal(name: NodeJS.Signals): void {
    if (this.#process) signal(this.#process.pid, name)
  }

  /** Without any last word; resolves when it is gone. */
  async kill(): Promise<void> {
    const process = this.#process
    this.#process = undefined
    process?.kill()
    await process?.exited
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
    const said = readIfThere(this.#log).slice(-1_000)
    throw new Error(`etcd at ${this.endpoint} does not serve; is etcd-server installed? ${said}`, {
      cause: last,
    })
  }

  /** Whether it leads the others. */
  async leads(): Promise<boolean> {
    const said = await this.ctl('endpoint', 'status', '-w', 'json')
    // As texts: a number of JavaScript is too small for their ids.
    const [, id] = /"member_id":(\d+)/.exec(said) ?? []
    const [, leader] = /"leader":(\d+)/.exec(said) ?? []
    return id !== undefined && id === leader
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
      const [client, peer] = [`http://${place.address}:${2380 + i}`, peers[i] ?? '']
      const args = memberArgs({ name: `m${i}`, folder, client, peer, cluster })
      return new Member(place, client, args, join(folder, `m${i}.log`))
    })
    const etcd = new Etcd(members, folder)
    try {
      await etcd.start()
      await etcd.serving()
      return etcd
    } catch (error) {
      await etcd.close()
      throw error
    }
  }

  get endpoints(): string {
    return this.members.map(({ endpoint }) => endpoint).join(',')
  }

  async start(): Promise<void> {
    for (const member of this.members) await member.start()
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
