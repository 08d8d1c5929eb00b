import type { Crowd } from './crowd.ts'
import { type Needs, tolerates } from './fit.ts'
import type { Room } from './room.ts'

/**
 * What counts for and against a host that fits. The free share decides where nothing is preferred: each preference
 * outweighs all of it, and a taint that asks to be avoided outweighs any one preference. Kubernetes' scheduler has the
 * same proportions.
 */
export const weights = {
  /** Times the share of processors and memory that is left after placement, 0 to 1, the mean of both. */
  freeShare: 100,
  /** For each preferred `affinity.together` of which a machine is there. */
  together: 200,
  /** Against each machine there that a preferred `affinity.apart` of this one means, and each such term of those there. */
  apart: 200,
  /** Against each machine that a preferred spread has more in this place than in the emptiest. */
  spread: 200,
  /** Against each PreferNoSchedule taint that is not tolerated. */
  taint: 300,
} as const

function freeShare({ demand: { cpus, memory } }: Needs, { capacity, taken }: Room): number {
  if (!capacity) return 0
  const left = (all: number, used: number) => (all > 0 ? Math.max(0, all - used) / all : 0)
  return (left(capacity.cpus, taken.cpus + cpus) + left(capacity.memory, taken.memory + memory)) / 2
}

function togetherCount({ vm }: Needs, { name }: Room, { together }: Crowd): number {
  return vm.spec.affinity.together.filter(({ required }, index) => !required && together[index]?.has(name))
    .length
}

function apartCount({ vm }: Needs, { name }: Room, { apart, shy }: Crowd): number {
  const meant = vm.spec.affinity.apart.map(({ required }, index) =>
    required ? 0 : (apart[index]?.get(name)?.length ?? 0),
  )
  const shyHere = shy.get(name)?.filter(({ term }) => !term.required).length ?? 0
  return meant.reduce((sum, count) => sum + count, shyHere)
}

/** A host without the label is a place of its own that has as many as the fullest: the labelled ones come first. */
function excess(room: Room, { spreads }: Crowd): number {
  let count = 0
  for (const { term, counts, least } of spreads) {
    if (term.required) continue
    const place = room.labels[term.topologyKey]
    const here = place === undefined ? Math.max(least, ...counts.values()) : (counts.get(place) ?? 0)
    count += Math.max(0, here - least)
  }
  return count
}

/** How good a host that fits is for a machine; more is better. Depends on nothing but its arguments' values. */
export function score(needs: Needs, room: Room, crowd: Crowd): number {
  const { demand } = needs
  if (demand.removal) return 0
  const avoided = room.host.spec.taints.filter(
    (taint) => taint.effect === 'PreferNoSchedule' && !tolerates(demand, taint),
  ).length
  return (
    weights.freeShare * freeShare(needs, room) +
    weights.together * togetherCount(needs, room, crowd) -
    weights.apart * apartCount(needs, room, crowd) -
    weights.spread * excess(room, crowd) -
    weights.taint * avoided
  )
}
