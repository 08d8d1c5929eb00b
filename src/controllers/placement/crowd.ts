import type { VirtualMachine } from '../../resources/vm.ts'
import { hasLabels, type Resident, type Residents, type Shy } from './residents.ts'
import type { Room } from './room.ts'

type SpreadTerm = VirtualMachine['spec']['spread'][number]

/** How the machines that a spread means lie over its places. */
export interface Spread {
  readonly term: SpreadTerm
  /** By value of the topology key. */
  readonly counts: ReadonlyMap<string, number>
  /** Fewest in a place where this machine could be. */
  readonly least: number
}

/** By host. */
type There<T> = ReadonlyMap<string, readonly T[]>

/** What a machine's choice depends on besides the hosts themselves: where the others are. */
export interface Crowd {
  /**
   * Indexes of `affinity.together` that the machine may be the first of: nobody with those labels is on a host, and it
   * has them itself. Without this a group that belongs together would never begin.
   */
  readonly founds: ReadonlySet<number>
  /** Those that each `affinity.together` means. */
  readonly together: readonly There<Resident>[]
  /** Those that each `affinity.apart` means. */
  readonly apart: readonly There<Resident>[]
  /** Those whose `affinity.apart` means this one. */
  readonly shy: There<Shy>
  readonly spreads: readonly Spread[]
}

function byHost<T extends Resident>(residents: readonly T[]): There<T> {
  const there = new Map<string, T[]>()
  for (const one of residents) {
    const here = there.get(one.host)
    if (here) here.push(one)
    else there.set(one.host, [one])
  }
  return there
}

/**
 * Only places with a host that is open to the machine count for the least: one that is down or cordoned must not keep
 * the others from taking what it had.
 */
function spreadOf(term: SpreadTerm, there: There<Resident>, rooms: readonly Room[], open: readonly Room[]) {
  const { topologyKey } = term
  const counts = new Map<string, number>()
  for (const { name, labels } of rooms) {
    const place = labels[topologyKey]
    if (place !== undefined) counts.set(place, (counts.get(place) ?? 0) + (there.get(name)?.length ?? 0))
  }
  const here = open.flatMap(({ labels }) => {
    const place = labels[topologyKey]
    return place === undefined ? [] : [counts.get(place) ?? 0]
  })
  return { term, counts, least: here.length > 0 ? Math.min(...here) : 0 }
}

/**
 * Where the others are whom a machine's choice depends on.
 * @param open the rooms whose hosts as such would do for the machine
 */
export function crowdOf(
  vm: VirtualMachine,
  residents: Residents,
  rooms: readonly Room[],
  open: readonly Room[],
): Crowd {
  const { affinity, spread } = vm.spec
  const there = ({ labels }: { labels: Record<string, string> }) => byHost(residents.meant(vm, labels))
  const together = affinity.together.map(there)
  return {
    founds: new Set(
      together.flatMap(({ size }, index) =>
        size === 0 && hasLabels(vm, affinity.together[index]?.labels ?? {}) ? [index] : [],
      ),
    ),
    together,
    apart: affinity.apart.map(there),
    shy: byHost(residents.shyOf(vm)),
    spreads: spread.map((term) => spreadOf(term, there(term), rooms, open)),
  }
}
