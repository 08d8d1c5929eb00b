import { apiVersionOf } from '../../resources/define.ts'
import { FenceEvidence } from '../../resources/fence-evidence.ts'
import { fencedHolder } from '../../resources/host-lease.ts'
import type { Lease } from '../../resources/kinds.ts'
import type { EvidenceSpec } from './types.ts'

/** On a lease that was taken: what proved it, as JSON, written with the same write. Whoever leads next stores it. */
export const fenceAnnotation = 'plasmavmc.io/fence'

export const epochOf = (lease: Lease): number => lease.spec.leaseTransitions ?? 0
export const versionOf = ({ metadata }: Pick<Lease, 'metadata'>): string => metadata.resourceVersion ?? ''
export const isFenced = (lease: Lease): boolean => lease.spec.holderIdentity === fencedHolder

export const evidenceName = ({ host, epoch }: Pick<EvidenceSpec, 'host' | 'epoch'>): string =>
  `${host}-${epoch}`

export function evidenceOf(spec: EvidenceSpec): FenceEvidence {
  const metadata = { name: evidenceName(spec) }
  return { apiVersion: apiVersionOf(FenceEvidence), kind: FenceEvidence.kind, metadata, spec }
}

/**
 * The lease as it is to be taken: with what proved it, and the epoch before the one that it then gets. Its version stays
 * the one that was silent.
 */
export function withProof(lease: Lease, evidence: EvidenceSpec): Lease {
  const annotations = { ...lease.metadata.annotations, [fenceAnnotation]: JSON.stringify(evidence) }
  return {
    ...lease,
    metadata: { ...lease.metadata, annotations },
    spec: { ...lease.spec, leaseTransitions: evidence.epoch - 1 },
  }
}

/** What a taken lease says proved it; undefined where it says nothing that is true of it as it stands. */
export function noted(lease: Lease, host: string): EvidenceSpec | undefined {
  const text = lease.metadata.annotations?.[fenceAnnotation]
  if (!isFenced(lease) || text === undefined) return undefined
  const spec = parsed(text)
  return spec?.host === host && spec.epoch === epochOf(lease) ? spec : undefined
}

function parsed(text: string): EvidenceSpec | undefined {
  try {
    return FenceEvidence.body.parse({ spec: JSON.parse(text) }).spec as EvidenceSpec
  } catch {
    return undefined
  }
}

/** Whether stored evidence is that of the very fencing a lease tells of, and not an older one's of the same name. */
export function isOf(stored: FenceEvidence, about: EvidenceSpec): boolean {
  const { host, epoch, lease } = stored.spec
  return (
    stored.metadata.name === evidenceName(about) &&
    host === about.host &&
    epoch === about.epoch &&
    lease?.resourceVersion === about.lease?.resourceVersion
  )
}

/** A person's word that the host is off, for the next epoch of its lease. */
export function claimFor(
  evidence: readonly FenceEvidence[],
  host: string,
  lease: Lease,
): FenceEvidence | undefined {
  return evidence.find(
    ({ spec }) => spec.host === host && spec.proof === 'Operator' && spec.epoch === epochOf(lease) + 1,
  )
}

/** Whether the lease is still as it was when the person gave their word. */
export const holdsFor = ({ spec }: FenceEvidence, lease: Lease): boolean =>
  spec.lease?.resourceVersion === versionOf(lease)

/** The epoch under which a lease is taken: one more than it has, or than any evidence there is of its host. */
export function nextEpoch(evidence: readonly FenceEvidence[], host: string, lease: Lease): number {
  const used = evidence.filter(({ spec }) => spec.host === host).map(({ spec }) => spec.epoch)
  return Math.max(epochOf(lease), ...used) + 1
}
