import type { Clock } from '../../lib/clock.ts'
import type { LabelsOf, Meter } from '../../lib/measures.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'

/** Of a machine that nobody has looked at yet. */
const unseen = 'Pending'
/** Namespaces that have series of their own; the rest, which have the fewest machines, are summed. */
const mostNamespaces = 100
/** No name of a namespace. */
const others = '_other'
const mostUnhealthy = 100
const unhealthy: ReadonlySet<string> = new Set(['CrashLoopBackOff', 'Failed', 'Unresponsive', 'Unknown'])

interface Known {
  readonly namespace: string
  readonly name: string
  phase: string
  /** Monotonic ms; absent where it was in that phase before we looked. */
  since?: number
  /** When we saw it being created, and the phases it has had since; absent once it has run, or where it was there before. */
  young?: { readonly at: number; readonly had: Set<string> }
}

export interface CensusOptions {
  /** Its `run` is the caller's. */
  readonly vms: Informer<VirtualMachine>
  readonly clock: Clock
  readonly meter: Meter
}

/**
 * Measures machines by their phases, and how long they take from one to the next, on a copy of all machines. One server
 * of a store does it, the one that leads or is alone, so that sums over all servers are right.
 * @returns ends it
 */
export function census({ vms, clock, meter }: CensusOptions): () => void {
  const known = new Map<string, Known>()
  const counts = new PhaseCounts()
  const stop = vms.onChange((key, vm) => {
    const before = known.get(key)
    if (before) counts.remove(key, before)
    if (!vm) return known.delete(key)
    const now = clock.elapsed()
    const one = before ?? met(vm, vms.synced ? now : undefined, meter)
    if (before) moved(before, phaseOf(vm), now, meter)
    else known.set(key, one)
    counts.add(key, one)
  })
  const ends = [
    meter.gauge('plasmavmc_vm_phase_count', () => counts.phases()),
    meter.gauge('plasmavmc_vm_unhealthy', () => counts.unhealthy()),
  ]
  return () => {
    stop()
    for (const end of ends) end()
  }
}

const phaseOf = ({ status }: VirtualMachine): string => status?.phase ?? unseen

/** @param now absent while the first list arrives: what is in it may be of any age */
function met(vm: VirtualMachine, now: number | undefined, meter: Meter): Known {
  const { name, namespace = '' } = vm.metadata
  const base = { name, namespace, phase: phaseOf(vm) }
  if (now === undefined) return base
  const one: Known = { ...base, since: now, young: { at: now, had: new Set() } }
  grown(one, now, meter)
  return one
}

function moved(one: Known, phase: string, now: number, meter: Meter): void {
  if (one.phase === phase) return
  meter.add('plasmavmc_vm_phase_transitions_total', { from: one.phase, to: phase })
  const labels = { phase, last_phase: one.phase }
  if (one.since !== undefined)
    meter.observe('plasmavmc_vm_phase_transition_time_seconds', labels, (now - one.since) / 1000)
  one.phase = phase
  one.since = now
  grown(one, now, meter)
}

function grown(one: Known, now: number, meter: Meter): void {
  const { young, phase } = one
  if (!young || young.had.has(phase)) return
  young.had.add(phase)
  const seconds = (now - young.at) / 1000
  meter.observe('plasmavmc_vm_phase_transition_time_from_creation_seconds', { phase }, seconds)
  if (phase === 'Running') delete one.young
}

type Place = Pick<Known, 'namespace' | 'name' | 'phase'>

/** Kept with each change: a look at the metrics must not cost more the more machines there are. */
export class PhaseCounts {
  readonly #namespaces = new Map<string, { total: number; readonly phases: Map<string, number> }>()
  readonly #unhealthy = new Map<string, Place>()

  add(key: string, one: Place): void {
    this.#change(one, 1)
    if (unhealthy.has(one.phase)) this.#unhealthy.set(key, one)
  }

  remove(key: string, one: Place): void {
    this.#change(one, -1)
    this.#unhealthy.delete(key)
  }

  phases(): readonly (readonly [LabelsOf<'plasmavmc_vm_phase_count'>, number])[] {
    const named = new Set(
      [...this.#namespaces]
        .sort(byTotal)
        .slice(0, mostNamespaces)
        .map(([name]) => name),
    )
    const rest = new Map<string, number>()
    const shown: [LabelsOf<'plasmavmc_vm_phase_count'>, number][] = []
    for (const [namespace, { phases }] of this.#namespaces)
      for (const [phase, count] of phases) {
        if (named.has(namespace)) shown.push([{ phase, namespace }, count])
        else rest.set(phase, (rest.get(phase) ?? 0) + count)
      }
    for (const [phase, count] of rest) shown.push([{ phase, namespace: others }, count])
    return shown
  }

  unhealthy(): readonly (readonly [LabelsOf<'plasmavmc_vm_unhealthy'>, number])[] {
    const first = [...this.#unhealthy.values()].slice(0, mostUnhealthy)
    return first.map(({ namespace, name, phase }) => [{ namespace, name, phase }, 1] as const)
  }

  #change({ namespace, phase }: Place, by: number): void {
    const known = this.#namespaces.get(namespace) ?? { total: 0, phases: new Map<string, number>() }
    const count = (known.phases.get(phase) ?? 0) + by
    known.total += by
    if (count > 0) known.phases.set(phase, count)
    else known.phases.delete(phase)
    if (known.total > 0) this.#namespaces.set(namespace, known)
    else this.#namespaces.delete(namespace)
  }
}

type Total = readonly [string, { readonly total: number }]

/** The fullest first; of equals always the same. */
function byTotal([a, { total: x }]: Total, [b, { total: y }]: Total): number {
  return y - x || (a < b ? -1 : 1)
}
