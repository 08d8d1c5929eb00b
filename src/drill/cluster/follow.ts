import { sleep, systemClock } from '../../lib/clock.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Seen } from '../lab.ts'
import type { NamespaceHost } from './host.ts'
import { machinesPath } from './lab.ts'

const retryMs = 50

/** Follows one machine by a watch, through whichever of the hosts answers, and keeps all that it was, and when. */
export class Follower {
  readonly #stop = new AbortController()
  readonly #seen: Seen[] = []

  constructor(name: string, hosts: readonly NamespaceHost[]) {
    void this.#follow(name, hosts)
  }

  async #follow(name: string, hosts: readonly NamespaceHost[]): Promise<void> {
    const { signal } = this.#stop
    for (let turn = 0; !signal.aborted; turn += 1) {
      try {
        const frames = hosts[turn % hosts.length]!.client.watch<VirtualMachine>(machinesPath, { signal })
        for await (const { type, object } of frames) {
          if (type !== 'BOOKMARK' && object.metadata.name === name)
            this.#seen.push({ vm: object, at: systemClock.elapsed() })
        }
      } catch {
        // Of a server that is down, or has no store: the next one is asked.
      }
      await sleep(systemClock, retryMs, signal).catch(() => {})
    }
  }

  /** The first that it was after a monotonic time and that is `wanted`. */
  first(after: number, wanted: (vm: VirtualMachine) => boolean): Seen | undefined {
    return this.#seen.find(({ vm, at }) => at > after && wanted(vm))
  }

  close(): void {
    this.#stop.abort()
  }
}
