import type { LabelsOf, Meter } from '../../lib/measures.ts'
import type { Host } from '../../resources/kinds.ts'
import { type Silence, silenceOf, type Watched } from './sight.ts'

/** Tells what the leader has recorded of hosts. @returns ends it */
export function measureHosts(hosts: () => readonly Host[], meter: Meter): () => void {
  const ends = [
    meter.gauge('plasmavmc_host_state', () =>
      hosts().map((host) => [{ host: host.metadata.name, state: stateOf(host) }, 1] as const),
    ),
    meter.gauge('plasmavmc_brake_held', () => [[{}, hosts().some(isBraked) ? 1 : 0]]),
  ]
  return () => {
    for (const end of ends) end()
  }
}

const conditionOf = ({ status }: Host, wanted: string) =>
  status?.conditions.find(({ type }) => type === wanted)

const isBraked = (host: Host) => conditionOf(host, 'Fenced')?.reason === 'BrakeHeld'

/** Of `plasmavmc_host_state`: what the host's conditions come to. */
export function stateOf(host: Host): 'Ready' | 'NotReady' | 'Lost' | 'Fenced' {
  const ready = conditionOf(host, 'Ready')
  if (conditionOf(host, 'Fenced')?.status === 'True') return 'Fenced'
  if (ready?.reason === 'LeaseExpired') return 'Lost'
  return ready?.status === 'True' ? 'Ready' : 'NotReady'
}

/** For how long each host's lease is silent for certain. */
export function silences(
  watched: Watched | undefined,
): readonly (readonly [LabelsOf<'plasmavmc_host_lease_silence_seconds'>, number])[] {
  if (!watched) return []
  const seconds = ({ certainMs }: Silence) => certainMs / 1000
  return [...watched.sights].map(([host, sight]) => [{ host }, seconds(silenceOf(sight, watched))])
}

/** Counts leases that one look shows changed since the one before, where nothing was missed between them. */
export function countRenewals(before: Watched | undefined, now: Watched | undefined, meter: Meter): void {
  if (!before || !now || before.begunAt !== now.begunAt) return
  for (const [host, { lease }] of now.sights) {
    const known = before.sights.get(host)?.lease
    if (known && known.metadata.resourceVersion !== lease.metadata.resourceVersion)
      meter.add('plasmavmc_host_lease_renewals_total', { host })
  }
}
