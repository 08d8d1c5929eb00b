import { hasEnded } from '../../host/procfs.ts'
import { messageOf, PlasmaError } from '../../lib/errors.ts'
import { command, namesIn, namespaceOf, pidsIn, proc, signal, within } from './processes.ts'

const prefix = 'pvmc-net-'
/** Digits of the namespace that our pids are of: of one that another numbers we can't say whether it lives. */
const pidSpace = namespaceOf(process.pid, 'pid').replace(/\D/g, '')
let count = 0

/** Address of the n-th host, from 1. */
export const addressOf = (n: number) => `10.77.0.${n}`

/** Which way what a host sends and receives is dropped. */
export type Way = 'both' | 'in' | 'out'

/** Kills what runs in a namespace until nothing does. */
async function clear(name: string): Promise<void> {
  const id = await within(name, 'readlink', '/proc/self/ns/net').then((text) => text.trim())
  for (let left = 200; left > 0; left -= 1) {
    const pids = pidsIn('net', id)
    if (pids.length === 0) return
    for (const pid of pids) signal(pid, 'SIGKILL')
    await new Promise((done) => setTimeout(done, 20))
  }
  throw new Error(`processes in the network namespace ${name} do not end`)
}

async function removeNamespace(name: string): Promise<void> {
  await clear(name)
  await command('ip', 'netns', 'del', name)
}

/** Whether the process that made a namespace, which its name tells, still lives, or may. */
function isOwned(name: string): boolean {
  const [space, ...numbers] = name.slice(prefix.length).split('-')
  if (space !== pidSpace) return true
  const [pid = 0, startTime = 0] = numbers.map(Number)
  const stat = proc.stat(pid)
  return stat.state === 'present' && !hasEnded(stat.value) && stat.value.startTime === startTime
}

function ownStartTime(): number {
  const stat = proc.stat(process.pid)
  return stat.state === 'present' ? stat.value.startTime : 0
}

/** Removes the networks of runs that were killed, with all that runs in them. */
export async function removeStale(): Promise<void> {
  for (const name of namesIn('/run/netns')) {
    if (name.startsWith(prefix) && !isOwned(name)) await removeNamespace(name).catch(() => {})
  }
}

/** Why there can be no lab on this machine, in words that help. */
function refusal(cause: unknown): PlasmaError {
  const hint =
    process.getuid?.() === 0
      ? 'it needs CAP_SYS_ADMIN and CAP_NET_ADMIN, which a container must be given (such as --privileged), and the packages iproute2 and nftables'
      : 'it needs root'
  const message = `hosts can't be made as network namespaces on this machine: ${messageOf(cause)}`
  return new PlasmaError('NoNamespaces', `${message}; ${hint}`, { hint, cause })
}

/**
 * A network of its own: a namespace for each host, all on a bridge in one more. Nothing of the machine's own network
 * is touched, so labs can run side by side.
 */
export class Network {
  readonly #base: string
  readonly #names: readonly string[]
  readonly #cuts = new Map<string, string[]>()

  private constructor(base: string, names: readonly string[]) {
    this.#base = base
    this.#names = names
  }

  /** @throws PlasmaError `NoNamespaces` that says what the machine lacks */
  static async make(names: readonly string[]): Promise<Network> {
    count += 1
    const network = new Network(`${prefix}${pidSpace}-${process.pid}-${ownStartTime()}-${count}`, names)
    try {
      await removeStale()
      await network.#build()
    } catch (error) {
      await network.close().catch(() => {})
      throw refusal(error)
    }
    return network
  }

  /** The network namespace of a host, for ip and nsenter. */
  namespace(host: string): string {
    return `${this.#base}-${host}`
  }

  get #switch(): string {
    return this.namespace('switch')
  }

  async #build(): Promise<void> {
    await command('ip', 'netns', 'add', this.#switch)
    await command('ip', '-n', this.#switch, 'link', 'add', 'name', 'br0', 'type', 'bridge')
    await command('ip', '-n', this.#switch, 'link', 'set', 'dev', 'br0', 'up')
    for (const [i, name] of this.#names.entries()) {
      const host = this.namespace(name)
      await command('ip', 'netns', 'add', host)
      const link = ['link', 'add', 'name', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', host]
      await command('ip', '-n', this.#switch, ...link)
      await command('ip', '-n', this.#switch, 'link', 'set', 'dev', name, 'master', 'br0', 'up')
      await command('ip', '-n', host, 'addr', 'add', `${addressOf(i + 1)}/24`, 'dev', 'eth0')
      await command('ip', '-n', host, 'link', 'set', 'lo', 'up')
      await command('ip', '-n', host, 'link', 'set', 'eth0', 'up')
    }
    // A machine without nftables is told now, not in the middle of a test.
    await within(this.#switch, 'nft', 'list', 'ruleset')
  }

  /**
   * Drops what the host sends to others, or receives from them, silently. Cuts add up until `heal`.
   * @param others addresses; every other machine where absent
   */
  async cut(host: string, way: Way = 'both', others: readonly string[] = ['10.77.0.0/24']): Promise<void> {
    const own = addressOf(this.#names.indexOf(host) + 1)
    const rules = this.#cuts.get(host) ?? []
    for (const other of others) {
      if (way !== 'out') rules.push(`add rule ip cut in ip saddr ${other} ip saddr != ${own} drop`)
      if (way !== 'in') rules.push(`add rule ip cut out ip daddr ${other} ip daddr != ${own} drop`)
    }
    this.#cuts.set(host, rules)
    await this.#rules(host, [
      'add table ip cut',
      'flush table ip cut',
      'add chain ip cut in { type filter hook input priority 0 ; }',
      'add chain ip cut out { type filter hook output priority 0 ; }',
      ...rules,
    ])
  }

  /** Ends every cut of a host. */
  async heal(host: string): Promise<void> {
    this.#cuts.delete(host)
    await this.#rules(host, ['add table ip cut', 'delete table ip cut'])
  }

  async #rules(host: string, lines: readonly string[]): Promise<void> {
    await within(this.namespace(host), 'nft', lines.join('\n'))
  }

  /** Kills what runs in the network and removes it. */
  async close(): Promise<void> {
    for (const name of [...this.#names.map((host) => this.namespace(host)), this.#switch]) {
      await removeNamespace(name).catch((error: unknown) => {
        if (!/No such file|cannot open/.test(messageOf(error))) throw error
      })
    }
  }
}
