import { PlasmaError } from '../lib/errors.ts'
import type { Lease } from './kinds.ts'

/** Namespace of what the system keeps for itself: the leases of hosts and of the leader. */
export const systemNamespace = 'plasmavmc-system'
/** Name of the leader's lease. */
export const leaderLease = 'controller'
export const hostLeaseName = (host: string): string => `host-${host}`
/** The host whose lease this is, or undefined where it is another's. */
export const hostOfLease = (name: string): string | undefined =>
  name.startsWith('host-') ? name.slice('host-'.length) : undefined

/**
 * The host that holds a lease. Its guard adds the id of the installation to the name (`host-a/ID`), so that two hosts
 * which go by one name never take each other's lease for their own.
 */
export const holderHost = (holder: string | undefined): string | undefined => holder?.split('/', 1)[0]

/** Holder of a lease that was taken from its host because that was lost. */
export const fencedHolder = 'fenced'

/** What a host says of itself each time it renews its lease; kept as annotations. What it says there it must keep. */
export interface HostLeaseFacts {
  /** After this long without a renewal the host begins to stop its failover-enabled machines, ms since it sent the last one. */
  readonly deadlineMs: number
  /** How long that takes at most, ms. */
  readonly stopMs: number
  /** How the host makes sure of it: not at all, by its guard process, or by a hardware watchdog besides. */
  readonly selfFence: 'none' | 'guard' | 'watchdog'
  /** Where its guard answers other hosts: address:port. */
  readonly peer?: string
  /** The hosts of the cluster as this one last knew them, itself among them, sorted. */
  readonly members: readonly string[]
  /** Until when (RFC 3339) the host does not stop its machines, whatever happens to the lease. */
  readonly maintenance?: string
  /** Whether its agent gave a sign of life lately. */
  readonly agent: 'alive' | 'silent'
  readonly bootId: string
}

/** The hosts whose word counts for a lost one: those that it named in its lease, and itself. */
export const membersOf = (members: readonly string[], host: string): readonly string[] => [
  ...new Set([...members, host]),
]

/** Whether more than half of them agree that the lease of `host` be taken; its own word never counts. */
export function mostAgree(members: readonly string[], host: string, consents: readonly string[]): boolean {
  const all = membersOf(members, host)
  const agree = new Set(consents.filter((one) => one !== host && all.includes(one)))
  return agree.size * 2 > all.length
}

const prefix = 'plasmavmc.io/'

/** The annotations that carry `facts`. */
export function leaseAnnotations(facts: HostLeaseFacts): Record<string, string> {
  const { deadlineMs, stopMs, selfFence, peer, members, maintenance, agent, bootId } = facts
  return {
    [`${prefix}deadline-ms`]: String(deadlineMs),
    [`${prefix}stop-ms`]: String(stopMs),
    [`${prefix}self-fence`]: selfFence,
    ...(peer !== undefined && { [`${prefix}peer`]: peer }),
    [`${prefix}members`]: members.join(','),
    ...(maintenance !== undefined && { [`${prefix}maintenance`]: maintenance }),
    [`${prefix}agent`]: agent,
    [`${prefix}boot-id`]: bootId,
  }
}

/** Leases are not changed once they were read, and each is asked many times before it is renewed. */
const known = new WeakMap<Lease, HostLeaseFacts>()

/** What a host's lease says. @throws PlasmaError `BadHostLease` where it says nothing that can be relied on */
export function leaseFacts(lease: Lease): HostLeaseFacts {
  const facts = known.get(lease) ?? factsOf(lease)
  known.set(lease, facts)
  return facts
}

function factsOf(lease: Lease): HostLeaseFacts {
  const of = (name: string) => lease.metadata.annotations?.[`${prefix}${name}`]
  const ms = (name: string) => {
    const value = Number(of(name) ?? 'absent')
    if (Number.isSafeInteger(value) && value >= 0) return value
    throw bad(lease, `${prefix}${name} is "${of(name)}", no number of ms`)
  }
  const oneOf = <T extends string>(name: string, words: readonly T[]): T => {
    const found = words.find((word) => word === of(name))
    if (found !== undefined) return found
    throw bad(lease, `${prefix}${name} is "${of(name)}", none of ${words.join(', ')}`)
  }
  const [peer, maintenance] = [of('peer'), of('maintenance')]
  return {
    deadlineMs: ms('deadline-ms'),
    stopMs: ms('stop-ms'),
    selfFence: oneOf('self-fence', ['none', 'guard', 'watchdog']),
    ...(peer !== undefined && { peer }),
    members: (of('members') ?? '').split(',').filter((word) => word !== ''),
    ...(maintenance !== undefined && { maintenance }),
    agent: oneOf('agent', ['alive', 'silent']),
    bootId: of('boot-id') ?? '',
  }
}

function bad({ metadata }: Lease, why: string): PlasmaError {
  return new PlasmaError('BadHostLease', `lease ${metadata.namespace}/${metadata.name}: ${why}`, {
    hint: 'the host may run another version of PlasmaVMC; it is not failed over',
  })
}
