import { noTries, planHosts } from '../../../src/controllers/hosts/plan.ts'
import type { Watched } from '../../../src/controllers/hosts/sight.ts'
import type { EvidenceSpec, Tries, World } from '../../../src/controllers/hosts/types.ts'
import { apiVersionOf } from '../../../src/resources/define.ts'
import { FenceEvidence } from '../../../src/resources/fence-evidence.ts'
import { Host, hostSpec } from '../../../src/resources/host.ts'
import {
  type HostLeaseFacts,
  hostLeaseName,
  leaseAnnotations,
  systemNamespace,
} from '../../../src/resources/host-lease.ts'
import { Lease, StoragePool } from '../../../src/resources/kinds.ts'
import { VirtualMachine, type VmStatus, vmSpec } from '../../../src/resources/vm.ts'

export const now = Date.parse('2026-01-01T12:00:00Z')
export const at = '2026-01-01T12:00:00Z'

export const facts = (more: Partial<HostLeaseFacts> = {}): HostLeaseFacts => ({
  ...{ deadlineMs: 6_000, stopMs: 2_000, selfFence: 'guard', members: ['a', 'b', 'c'] },
  ...{ agent: 'alive', bootId: 'boot', peer: '10.0.0.1:7444' },
  ...more,
})

export function lease(
  host: string,
  metadata: Partial<Lease['metadata']> = {},
  spec: Partial<Lease['spec']> = {},
  said: Partial<HostLeaseFacts> = {},
): Lease {
  return {
    ...{ apiVersion: apiVersionOf(Lease), kind: Lease.kind },
    metadata: {
      ...{
        name: hostLeaseName(host),
        namespace: systemNamespace,
        uid: `lease-${host}`,
        resourceVersion: '7',
      },
      annotations: leaseAnnotations(facts(said)),
      ...metadata,
    },
    spec: { holderIdentity: host, leaseTransitions: 3, renewTime: at, ...spec },
  }
}

type HostSpec = Host['spec']

export function host(
  name: string,
  of: { readonly spec?: object; readonly conditions?: NonNullable<Host['status']>['conditions'] } = {},
): Host {
  const spec: HostSpec = hostSpec.parse({ fencing: { mode: 'guard' }, ...of.spec })
  const ready = {
    type: 'Ready',
    status: 'True',
    reason: 'Ready',
    message: '',
    lastTransitionTime: at,
  } as const
  return {
    ...{ apiVersion: apiVersionOf(Host), kind: Host.kind, metadata: { name, uid: `host-${name}` }, spec },
    status: { addresses: [], capabilities: [], orphans: [], conditions: of.conditions ?? [ready] },
  }
}

const process = {
  ...{ pid: 42, startTime: 4200, bootId: 'boot', launchId: 'l-1', accelerator: 'tcg', startedAt: at },
  specHash: 'x',
}

/** A machine that runs on `a`, is told to fail over, and has no disks. */
export function machine(
  name: string,
  of: {
    readonly spec?: object
    readonly status?: Partial<VmStatus>
    readonly metadata?: Partial<VirtualMachine['metadata']>
  } = {},
): VirtualMachine {
  return {
    ...{ apiVersion: apiVersionOf(VirtualMachine), kind: VirtualMachine.kind },
    metadata: {
      ...{ name, namespace: 'default', uid: `vm-${name}`, resourceVersion: '9', creationTimestamp: at },
      ...of.metadata,
    },
    spec: vmSpec.parse({ recovery: { onHostLoss: 'Failover' }, ...of.spec }),
    status: {
      ...{ restarts: 0, networks: [], disks: [], conditions: [], phase: 'Running', hostName: 'a' },
      ...{ placementEpoch: 3, onHostLoss: 'Failover', process },
      ...of.status,
    },
  }
}

export function pool(name: string, shared: boolean): StoragePool {
  return {
    ...{ apiVersion: apiVersionOf(StoragePool), kind: StoragePool.kind, metadata: { name } },
    spec: { path: `/pools/${name}`, shared },
  }
}

export function evidence(spec: Partial<EvidenceSpec> = {}): FenceEvidence {
  const full: EvidenceSpec = {
    ...{
      host: 'a',
      epoch: 4,
      proof: 'Guard',
      by: 'b',
      leaderEpoch: 1,
      at,
      votes: ['b', 'c'],
      seen: 'silence',
    },
    lease: { epoch: 3, resourceVersion: '7' },
    ...spec,
  }
  return {
    ...{ apiVersion: apiVersionOf(FenceEvidence), kind: FenceEvidence.kind },
    metadata: { name: `${full.host}-${full.epoch}`, uid: `evidence-${full.host}-${full.epoch}` },
    spec: full,
  }
}

/** Leases with how long each was silent for certain; seen to change a second before that. */
export function seen(leases: readonly (readonly [Lease, number])[], forMs = 600_000): Watched {
  const last = { startedAt: 1_000_000, endedAt: 1_000_100 }
  const sights = leases.map(([one, silentMs]) => {
    const since = last.startedAt - silentMs
    return [one.metadata.name.slice('host-'.length), { lease: one, since, notBefore: since - 1_000 }] as const
  })
  return { begunAt: last.startedAt - forMs, last, sights: new Map(sights) }
}

/** Three hosts, of which a is silent for `silentMs`; `more` takes the place of what is given by default. */
export function world(
  silentMs: number,
  more: Omit<Partial<World>, 'tries'> & {
    readonly lease?: Lease
    readonly tried?: Partial<Tries>
  } = {},
): World {
  const { lease: own = lease('a'), tried, ...rest } = more
  return {
    watched: seen([
      [own, silentMs],
      [lease('b'), 500],
      [lease('c'), 2_500],
    ]),
    hosts: [host('a'), host('b'), host('c')],
    ...{ machines: [], pools: [], evidence: [] },
    tries: new Map([['a', { ...noTries, ...tried }]]),
    leader: { name: 'b', epoch: 1 },
    ...{ brakePercent: 50, durationMs: 10_000, suspectMs: 6_000 },
    ...rest,
  }
}

/** The plan for a. */
export function planFor(one: World) {
  const plan = planHosts(one, now).get('a')
  const condition = (type: string) => {
    const found = plan?.conditions.find((fact) => fact.type === type)
    return found && `${found.status}/${found.reason}`
  }
  return {
    ...{ plan, action: plan?.actions[0], does: plan?.actions.map((action) => action.do) },
    ...{ ready: condition('Ready'), fenced: condition('Fenced'), schedulable: condition('Schedulable') },
    guarded: condition('Guarded'),
    words: plan?.conditions.find(({ type }) => type === 'Fenced')?.message ?? '',
  }
}

export const agreed = { resourceVersion: '7', ageMs: 1_000, consents: ['b', 'c'], refusals: [] }

/** The lease of a host that was taken, as it then is. */
export const fencedLease = (spec: EvidenceSpec = evidence().spec) =>
  lease(
    'a',
    {
      resourceVersion: '20',
      annotations: { ...lease('a').metadata.annotations, 'plasmavmc.io/fence': JSON.stringify(spec) },
    },
    { holderIdentity: 'fenced', leaseTransitions: spec.epoch },
  )
