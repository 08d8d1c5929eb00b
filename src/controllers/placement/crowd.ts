import type { VirtualMachine } from '../../resources/vm.ts'
import { hasLabels, isMeant, type Room } from './room.ts'

type SpreadTerm = VirtualMachine['spec']['spread'][number]

/** How the machines that a spread means lie over its places. */
export interface Spread {
  readonly term: SpreadTerm
  /** By value of the topology key. */
  readonly counts: ReadonlyMap<string, number>
  /** Fewest in a place where this machine could be. */
  readonly least: number
}

/** What a machine's choice depends on beyond one host: where all the others are. */
export interface Crowd {
  /**
   * Indexes of `affinity.together` that the machine may be the first of: nobody with those labels is on a host, and it
   * has them itself. Without this a group that belongs together would never begin.
   */
  readonly founds: ReadonlySet<number>
  readonly spreads: readonly Spread[]
}

function foundsOf(vm: VirtualMachine, rooms: readonly Room[]): Set<number> {
  const founds = new Set<number>()
  for (const [index, { labels }] of vm.spec.affinity.together.entries()) {
    if (!hasLabels(vm, labels)) continue
    const begun = rooms.some(({ machines }) => machines.some((other) => isMeant(vm, other, labels)))
    if (!begun) founds.add(index)
  }
  return founds
}

/**
 * Only places with a host that is open to the machine count for the least: one that is down or cordoned must not keep
 * the others from taking what it had.
 */
function spreadOf(
  vm: VirtualMachine,
  term: SpreadTerm,
  rooms: readonly Room[],
  open: readonly Room[],
): Spread {
  const { labels, topologyKey } = term
  const counts = new Map<string, number>()
  for (const room of rooms) {
    const place = room.labels[topologyKey]
    if (place === undefined) continue
    const here = room.machines.filter((other) => isMeant(vm, other, labels)).length
    counts.set(place, (counts.get(place) ?? 0) + here)
  }
  const places = open.flatMap((room) => room.labels[topologyKey] ?? [])
  const least = places.reduce((min, place) => Math.min(min, counts.get(place) ?? 0), Number.POSITIVE_INFINITY)
  return { term, counts, least: places.length > 0 ? least : 0 }
}

/** @param open the rooms whose hosts as such would do for the machine */
export function crowdOf(vm: VirtualMachine, rooms: readonly Room[], open: readonly Room[]): Crowd {
  return {
    founds: foundsOf(vm, rooms),
    spreads: vm.spec.spread.map((term) => spreadOf(vm, term, rooms, open)),
  }
}
