import type { FenceOutcome } from '../host/fence-command.ts'
import { sleep } from '../lib/clock.ts'
import { silentLog } from '../lib/log.ts'
import { Namespace, namespaceNamed } from '../resources/kinds.ts'
import { KvObjects } from '../store/kv-objects.ts'
import { SimProcess, Timeline } from './clock.ts'
import { type Ender, SimHost, type Witness } from './host.ts'
import type { SharedDisks } from './host-ports.ts'
import { Net } from './net.ts'
import type { HostParts } from './parts.ts'
import { SimPeers } from './peers.ts'
import type { SimQemu } from './qemu.ts'
import { Random } from './random.ts'
import { sharedReads } from './reads.ts'
import { Rules } from './rules.ts'
import { SimStore } from './store.ts'

export interface HostFacts {
  readonly name: string
  readonly labels?: Record<string, string>
  readonly cpus?: number
  readonly memory?: string
}

export interface WorldOptions {
  readonly seed: number
  readonly hosts: readonly HostFacts[]
  readonly parts: HostParts
  /** Gets what happens in truth, one line each. */
  readonly tell?: (line: string) => void
  /** What the controllers log at `info` and above is told too. */
  readonly verbose?: boolean
}

/** Wall time at which every world begins. */
export const worldEpoch = Date.parse('2026-01-01T00:00:00Z')

/** How far the clocks of two good machines drift apart at most, to the second; `checkTerms` allows 1 %. */
const drift = 0.004

/** Name of the network of management controllers among the nodes. */
export const managementNode = 'management'
const fenceMs = 1_500

/** Hosts, a network, a store and a clock, and nothing of them real except the controllers that run on the hosts. */
export class World implements Witness {
  readonly timeline = new Timeline()
  readonly random: Random
  readonly net: Net
  readonly store: SimStore
  readonly peers: SimPeers
  readonly hosts = new Map<string, SimHost>()
  readonly rules: Rules
  readonly disks: SharedDisks
  readonly parts: HostParts
  /** What every client of the store reads objects with. */
  readonly reader = sharedReads()
  /** The store as a person next to it sees it. */
  readonly objects: KvObjects
  readonly #tell: (line: string) => void
  readonly verbose: boolean

  constructor({ seed, hosts, parts, tell, verbose = false }: WorldOptions) {
    this.random = new Random(seed)
    this.net = new Net(this.timeline, this.random.fork('net'))
    this.store = new SimStore(this.timeline, this.net)
    this.peers = new SimPeers(this.net)
    this.parts = parts
    this.#tell = tell ?? (() => {})
    this.verbose = verbose
    this.rules = new Rules(this)
    const uids = this.random.fork('uids')
    const person = new SimProcess('person', this.timeline, { rate: 1, epoch: worldEpoch, bootedAt: 0 })
    this.objects = new KvObjects(this.store.direct(), {
      ...{ clock: person.clock, newUid: () => uids.uuid(), reader: this.reader },
    })
    this.disks = {
      files: new Set(),
      made: (host, uid, name, shared) => this.rules.diskMade(host, uid, name, shared),
      removed: (uid) => this.rules.disksRemoved(uid),
    }
    const rates = this.random.fork('rates')
    const { rate: put = (right: number) => right, blindWrites = false } = parts.mistakes ?? {}
    this.store.blindWrites = blindWrites
    for (const facts of hosts) this.#addHost(facts, put(1 + rates.between(-drift, drift), facts.name))
  }

  #addHost({ name, labels = {}, cpus = 8, memory = '16Gi' }: HostFacts, rate: number): void {
    const facts = { name, labels, cpus, memory, time: { rate, epoch: worldEpoch, bootedAt: 0 } }
    this.hosts.set(name, new SimHost(facts, this.timeline, this.random.fork(name), this))
  }

  /** The host of a name. @throws Error where there is none */
  host(name: string): SimHost {
    const host = this.hosts.get(name)
    if (host) return host
    throw new Error(`no host ${name}; there are ${[...this.hosts.keys()].join(', ')}`)
  }

  tell(line: string): void {
    const seconds = (this.timeline.now / 1000).toFixed(3).padStart(9)
    this.#tell(`${seconds}  ${line}`)
  }

  /** Creates what is there before any host, then boots all hosts. */
  async begin(): Promise<void> {
    for (const name of ['default', 'plasmavmc-system'])
      await this.objects.create(Namespace, namespaceNamed(name))
    for (const host of this.hosts.values()) this.boot(host)
  }

  boot(host: SimHost): void {
    if (host.on) return
    host.boot()
    this.parts.boot(host, this)
  }

  /** What a fence command does: it cuts the power, and then sees that it is off. */
  async fence(from: string, process: SimProcess, name: string): Promise<FenceOutcome> {
    const host = this.hosts.get(name)
    await sleep(process.clock, fenceMs)
    if (!host || this.net.how(from, managementNode) !== undefined)
      return { state: 'failed', reason: 'CommandFailed', why: 'its management controller does not answer' }
    host.powerOff()
    await sleep(process.clock, fenceMs)
    if (host.on) return { state: 'failed', reason: 'LiedOff', why: 'it is on again' }
    return { state: 'off', seen: 'the management controller says that it is off' }
  }

  /** Runs until the time, or until `enough`, which is asked after every step. @throws Violation */
  async run(until: number, enough: () => boolean = () => false): Promise<void> {
    while (!enough()) {
      if (!(await this.timeline.step(until))) return
      this.rules.check()
    }
  }

  guest(host: SimHost, qemu: SimQemu): void {
    this.rules.guest(host, qemu)
    this.tell(`${qemu.name} on ${host.name}: ${stateOf(host, qemu)}`)
  }

  launched(host: SimHost, qemu: SimQemu): void {
    this.rules.launched(host, qemu)
    this.tell(`${qemu.name} on ${host.name}: QEMU ${qemu.pid} started`)
  }

  ended(host: SimHost, qemu: SimQemu, by: Ender): void {
    this.rules.ended(host, qemu, by)
    const how = by === 'quit' ? 'quit' : by === 'power' ? 'lost its power' : `killed by ${by}`
    this.tell(`${qemu.name} on ${host.name}: QEMU ${qemu.pid} ${how}`)
  }

  /** What a process logs. */
  logOf(process: SimProcess) {
    if (!this.verbose) return silentLog
    const line =
      (level: string) =>
      (message: string, fields: Readonly<Record<string, unknown>> = {}) => {
        const text = Object.entries(fields).map(([key, value]) => `${key}=${shown(value)}`)
        this.tell(`${process.name}: ${level}${[message, ...text].join(' ')}`)
      }
    const log = {
      debug() {},
      info: line(''),
      warn: line('warning: '),
      error: line('error: '),
      child: () => log,
    }
    return log
  }
}

function shown(value: unknown): string {
  return value instanceof Error ? value.message : typeof value === 'string' ? value : JSON.stringify(value)
}

function stateOf(host: SimHost, qemu: SimQemu): string {
  if (host.paused) return 'stands still with its host'
  if (qemu.stuck) return 'in uninterruptible sleep'
  return qemu.stopped ? 'stopped by a signal' : `guest ${qemu.state}`
}
