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
  const stop = vms.onChange((key, vm) => {
    if (!vm) known.delete(key)
    else {
      const before = known.get(key)
      const now = clock.elapsed()
      if (before) moved(before, phaseOf(vm), now, meter)
      else known.set(key, met(vm, vms.synced ? now : undefined, meter))
    }
  })
  const ends = [
    meter.gauge('plasmavmc_vm_phase_count', () => countPhases(vms.list())),
    meter.gauge('plasmavmc_vm_unhealthy', () => unhealthyOf(vms.list())),
  ]
  return () => {
    stop()
    for (const end of ends) end()
  }
}

const phaseOf = ({ status }: VirtualMachine): string => status?.phase ?? unseen

/** @param now absent while the first list arrives: what is in it may be of any age */
function met(vm: VirtualMachine, now: number | undefined, meter: Meter): Known {
  const phase = phaseOf(vm)
  if (now === undefined) return { phase }
  const one: Known = { phase, since: now, young: { at: now, had: new Set() } }
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

/** Machines by namespace and phase. Read at a look at the metrics: ten thousand take about a millisecond. */
export function countPhases(
  vms: readonly VirtualMachine[],
): readonly (readonly [LabelsOf<'plasmavmc_vm_phase_count'>, number])[] {
  const counts = new Map<string, Map<string, number>>()
  const totals = new Map<string, number>()
  for (const vm of vms) {
    const namespace = vm.metadata.namespace ?? ''
    const phase = phaseOf(vm)
    const phases = counts.get(namespace) ?? new Map<string, number>()
    counts.set(namespace, phases.set(phase, (phases.get(phase) ?? 0) + 1))
    totals.set(namespace, (totals.get(namespace) ?? 0) + 1)
  }
  const named = new Set(
    [...totals]
      .sort(byTotal)
      .slice(0, mostNamespaces)
      .map(([name]) => name),
  )
  const rest = new Map<string, number>()
  const shown: [LabelsOf<'plasmavmc_vm_phase_count'>, number][] = []
  for (const [namespace, phases] of counts)
    for (const [phase, count] of phases) {
      if (named.has(namespace)) shown.push([{ phase, namespace }, count])
      else rest.set(phase, (rest.get(phase) ?? 0) + count)
    }
  for (const [phase, count] of rest) shown.push([{ phase, namespace: others }, count])
  return shown
}

/** The fullest first; of equals always the same. */
function byTotal([a, x]: readonly [string, number], [b, y]: readonly [string, number]): number {
  return y - x || (a < b ? -1 : 1)
}

function* unhealthyOf(
  vms: readonly VirtualMachine[],
): Generator<readonly [LabelsOf<'plasmavmc_vm_unhealthy'>, number]> {
  let left = mostUnhealthy
  for (const vm of vms) {
    const phase = phaseOf(vm)
    if (left === 0 || !unhealthy.has(phase)) continue
    left -= 1
    const { namespace = '', name } = vm.metadata
    yield [{ namespace, name, phase }, 1]
  }
}
