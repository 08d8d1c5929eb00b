import type { Clock } from '../lib/clock.ts'
import type { VirtualMachine } from '../resources/vm.ts'
import { run } from './exec.ts'
import type { LooseTap } from './ports.ts'
import { tapName, uidOf } from './qemu-args.ts'
import type { RunIp } from './taps.ts'

/** All links are asked for at once, and not for each machine anew. */
const maxAgeMs = 5_000

interface Link {
  readonly ifname: string
  readonly master?: string
}

const ip: RunIp = (args) => run('ip', args, { timeoutMs: 10_000 })

/**
 * Finds taps of running machines that lead nowhere: a bridge that is made anew (a network service that restarts) has lost
 * its ports, and nobody tells QEMU.
 */
export class TapWatch {
  readonly #clock: Clock
  readonly #ip: RunIp
  #links: { readonly at: number; readonly byName: Promise<ReadonlyMap<string, Link>> } | undefined

  constructor(clock: Clock, runIp: RunIp = ip) {
    this.#clock = clock
    this.#ip = runIp
  }

  /** The taps of a machine, as it runs, that are gone or not on their bridge. Empty where that can't be told. */
  async loose(vm: VirtualMachine): Promise<readonly LooseTap[]> {
    if (!vm.spec.networks.some(({ bridge, tap }) => bridge ?? tap)) return []
    try {
      const found = looseAmong(vm, await this.#byName(maxAgeMs))
      // The answer may be older than the machine.
      return found.length === 0 ? found : looseAmong(vm, await this.#byName(0))
    } catch {
      return []
    }
  }

  /** Puts a tap on its bridge and up. @throws PlasmaError `CommandFailed` */
  async attach(tap: string, bridge: string): Promise<void> {
    await this.#ip(['link', 'set', 'dev', tap, 'master', bridge])
    await this.#ip(['link', 'set', 'dev', tap, 'up'])
    this.#links = undefined
  }

  #byName(ageMs: number): Promise<ReadonlyMap<string, Link>> {
    const now = this.#clock.elapsed()
    if (!this.#links || now - this.#links.at >= ageMs) this.#links = { at: now, byName: this.#ask() }
    return this.#links.byName
  }

  async #ask(): Promise<ReadonlyMap<string, Link>> {
    const { stdout } = (await this.#ip(['-json', 'link', 'show'])) as { stdout: string }
    return new Map((JSON.parse(stdout) as Link[]).map((link) => [link.ifname, link]))
  }
}

function looseAmong(vm: VirtualMachine, links: ReadonlyMap<string, Link>): LooseTap[] {
  return vm.spec.networks.flatMap(({ name, bridge, tap: given }) => {
    if (!bridge && !given) return []
    const tap = given?.name ?? tapName(uidOf(vm), name)
    const link = links.get(tap)
    if (!link) {
      const way = given ? `make it, then restart the machine` : 'restart the machine'
      return [{ network: name, tap, message: `${name}: its tap ${tap} is gone; ${way}` }]
    }
    if (!bridge || link.master === bridge.name) return []
    if (links.has(bridge.name))
      return [
        { network: name, tap, attach: bridge.name, message: `${name}: ${tap} is not on ${bridge.name}` },
      ]
    const way = `ip link add ${bridge.name} type bridge && ip link set ${bridge.name} up`
    return [{ network: name, tap, message: `${name}: this host has no bridge ${bridge.name}; ${way}` }]
  })
}
