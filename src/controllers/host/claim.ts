import { type Clock, sleep } from '../../lib/clock.ts'
import { PlasmaError } from '../../lib/errors.ts'
import { FenceEvidence } from '../../resources/fence-evidence.ts'
import type { Host } from '../../resources/host.ts'
import { fencedHolder, hostLeaseName, leaseFacts, systemNamespace } from '../../resources/host-lease.ts'
import { Host as HostKind, Lease } from '../../resources/kinds.ts'
import { VirtualMachine } from '../../resources/vm.ts'
import { isReason } from '../../store/errors.ts'
import { hostIdAnnotation, type Registration, registered } from './register.ts'

export interface ClaimDeps extends Registration {
  readonly hostId: string
  readonly bootId: string
  readonly clock: Clock
  readonly signal: AbortSignal
  /** How long a lease may be silent while its host is well, ms. */
  readonly durationMs: number
  /** How often a guard renews its lease, ms. */
  readonly renewMs: number
}

const lookEveryMs = 1_000
/** How often the name is tried for while others write to its Host. */
const tries = 10

/** Whose a Host is, as far as it says so. */
export const ownerOf = (host: Host): string | undefined => host.metadata.annotations?.[hostIdAnnotation]

/** The error for a host whose name another goes by. */
export function nameTaken(hostName: string, why: string, hint: string): PlasmaError {
  return new PlasmaError('HostNameTaken', `--host-name: another host goes by the name ${hostName}: ${why}`, {
    hint,
  })
}

/**
 * Makes a name in a shared store this host's own, before its lease is touched: two hosts with one name would each take
 * the other's machines for its own. Who is who is told by a random id in the data folder. A name whose lease is
 * renewed by another is refused. One whose host is silent is taken over only where none of its machines can be running
 * elsewhere: it is this very boot of this machine, or none is placed there, or the whole host is proven off.
 * @throws PlasmaError `HostNameTaken` with what to do
 */
export async function claimHost(deps: ClaimDeps): Promise<void> {
  for (let i = 0; i < tries; i++) {
    const host = await registered(deps).catch(unlessConflict)
    if (host === undefined) continue
    if (ownerOf(host) === deps.hostId) return untilNoCopy(deps)
    const lease = await leaseOf(deps)
    // One that was seen and never said whose it is was alone in its store: it has no lease, and may still run machines.
    if (ownerOf(host) !== undefined || lease !== undefined || host.status?.bootId !== undefined) {
      deps.log.warn('another host went by this name; watching whether it still does', {
        name: deps.hostName,
        seconds: Math.ceil(windowMs(deps) / 1000),
      })
      await untilSilent(deps)
      await requireNoMachines(host, deps)
    }
    const annotations = { ...host.metadata.annotations, [hostIdAnnotation]: deps.hostId }
    const claimed = { ...host, metadata: { ...host.metadata, annotations } }
    if (await deps.objects.update(HostKind, claimed).catch(unlessConflict)) return
  }
  throw nameTaken(
    deps.hostName,
    'its Host is written to all the time',
    'look for its server, and start again',
  )
}

/**
 * A lease that another boot holds in our own name: this host was rebooted, or one of us has a copy of the other's data
 * folder. Two such would write over each other what they see of one host. Of a reboot that took its time nothing is
 * left to wait for; that is told by the clocks of two boots, as it decides no more than that.
 * @throws PlasmaError where the other one renews the lease
 */
async function untilNoCopy(deps: ClaimDeps): Promise<void> {
  const { clock, signal, hostName } = deps
  const first = await leaseOf(deps)
  if (!isOfAnotherBoot(first, deps) || clock.now() - Date.parse(first?.spec.renewTime ?? '') > longAgoMs)
    return
  const end = clock.elapsed() + deps.renewMs * 1.2 + lookEveryMs
  while (clock.elapsed() < end) {
    await sleep(clock, lookEveryMs, signal)
    const lease = await leaseOf(deps)
    if (!isOfAnotherBoot(lease, deps)) return
    if (lease?.metadata.resourceVersion === first?.metadata.resourceVersion) continue
    throw nameTaken(
      hostName,
      'it has the host-id of this one, and renews its lease: one of the two has a copy of the data folder of the other',
      "on the one that is the copy, remove host-id from --data-dir, end its guard, and start it with another --host-name; see 'Two hosts by one name' in docs/cluster.md",
    )
  }
}

/** A reboot takes less, or it can't be told from a copy that has ended, ms. */
const longAgoMs = 20_000

function isOfAnotherBoot(lease: Lease | undefined, { hostName, hostId, bootId }: ClaimDeps): boolean {
  if (lease?.spec.holderIdentity !== `${hostName}/${hostId}`) return false
  try {
    return leaseFacts(lease).bootId !== bootId
  } catch {
    return false
  }
}

/** A conflict means: look again. */
function unlessConflict(error: unknown): undefined {
  if (isReason(error, 'Conflict')) return undefined
  throw error
}

async function leaseOf({ objects, hostName }: ClaimDeps): Promise<Lease | undefined> {
  try {
    return await objects.get(Lease, { namespace: systemNamespace, name: hostLeaseName(hostName) })
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined
    throw error
  }
}

/** A good deal longer than its host may be silent, since two clocks run differently. */
const windowMs = ({ durationMs }: ClaimDeps) => durationMs * 1.2 + lookEveryMs

/** Resolves when the lease did not change for a whole window. @throws PlasmaError once its host renews it */
async function untilSilent(deps: ClaimDeps): Promise<void> {
  const { clock, signal, hostName } = deps
  const first = (await leaseOf(deps))?.metadata.resourceVersion
  const end = clock.elapsed() + windowMs(deps)
  while (clock.elapsed() < end) {
    await sleep(clock, lookEveryMs, signal)
    const lease = await leaseOf(deps)
    const holder = lease?.spec.holderIdentity
    if (lease?.metadata.resourceVersion === first || holder === undefined || holder === fencedHolder) continue
    throw nameTaken(
      hostName,
      'it renews its lease',
      'give this one another name with --host-name; if it is this host with another --data-dir, give the old one, or stop the guard of the old one first',
    )
  }
}

/** @throws PlasmaError where a machine of the host that had the name may be running there */
async function requireNoMachines(host: Host, deps: ClaimDeps): Promise<void> {
  const { objects, hostName, bootId } = deps
  // Where it is this boot of this machine, what runs here is found in /proc, whichever folder it was started from.
  if (host.status?.bootId === bootId) return
  const { items } = await objects.list(VirtualMachine)
  const there = items.filter(
    ({ status }) => status?.hostName === hostName && (status.process ?? status.launch) !== undefined,
  )
  if (there.length === 0 || (await provenOff(deps))) return
  const some = there.slice(0, 3).map(({ metadata: { namespace, name } }) => `${namespace}/${name}`)
  const more = there.length > some.length ? ` and ${there.length - some.length} more` : ''
  throw nameTaken(
    hostName,
    `it is silent, and may still run ${some.join(', ')}${more}`,
    `give this one another name with --host-name; if that host is off or was installed anew, say so on another host: plasmavmc host fence ${hostName} --confirm-off`,
  )
}

/** Whether the lease was taken on the proof that the whole host was off, not merely that it stopped some machines. */
async function provenOff(deps: ClaimDeps): Promise<boolean> {
  const lease = await leaseOf(deps)
  if (lease?.spec.holderIdentity !== fencedHolder) return false
  const { items } = await deps.objects.list(FenceEvidence)
  return items.some(
    ({ spec }) =>
      spec.host === deps.hostName &&
      spec.epoch === lease.spec.leaseTransitions &&
      (spec.proof === 'Operator' || spec.proof === 'Command'),
  )
}
