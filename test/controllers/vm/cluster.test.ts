import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { plan } from '../../../src/controllers/vm/plan.ts'
import { strayWords } from '../../../src/controllers/vm/strays.ts'
import { requireTenure } from '../../../src/controllers/vm/tenure.ts'
import type { Tenure } from '../../../src/host/ports.ts'
import type { VmAction } from '../../../src/resources/vm.ts'
import { Cluster, type ClusterFault, type HostName, type Parts } from './cluster.ts'

const names: readonly HostName[] = ['host-a', 'host-b']
const host = fc.constantFrom(...names)
const of = (kind: 'step' | 'pass' | 'crash' | 'killQemu' | 'lie') =>
  host.map((name): ClusterFault => ({ kind, host: name }))

const leads: readonly ClusterFault[] = [{ kind: 'leader' }, { kind: 'leader' }]
const pass = (name: HostName): ClusterFault => ({ kind: 'pass', host: name })
const tick = (ms: number): ClusterFault => ({ kind: 'tick', ms })
/** A host can't be reached until its lease was taken, and its machine with it where that may be. */
const lost = (name: HostName): readonly ClusterFault[] => [
  { kind: 'cut', host: name, on: true },
  ...[tick(11_000), ...leads, ...leads],
  ...names.filter((other) => other !== name).map(pass),
]

const change: fc.Arbitrary<ClusterFault> = fc.oneof(
  fc
    .constantFrom('Manual' as const, 'Failover' as const)
    .map((to): ClusterFault => ({ kind: 'recovery', to })),
  fc
    .constantFrom<VmAction[]>('Start', 'Stop', 'Restart', 'Move', 'Move', 'Pause', 'Unpause')
    .map((action): ClusterFault => ({ kind: 'request', action })),
)

/** Some are several at once: what takes all of them to show is rare otherwise. */
const faults: fc.Arbitrary<readonly ClusterFault[]> = fc.oneof(
  { weight: 6, arbitrary: of('step').map((one) => [one]) },
  { weight: 4, arbitrary: of('pass').map((one) => [one, one, one]) },
  { weight: 2, arbitrary: of('pass').map((one) => [one]) },
  { weight: 1, arbitrary: fc.constant([leads[0]!]) },
  { weight: 4, arbitrary: fc.constant(leads) },
  { weight: 3, arbitrary: host.map(lost) },
  {
    weight: 2,
    arbitrary: host.map((name): readonly ClusterFault[] => [
      { kind: 'cut', host: name, on: false },
      tick(500),
    ]),
  },
  { weight: 3, arbitrary: fc.constantFrom(500, 4_500, 6_000, 11_000).map((ms) => [tick(ms)]) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(host, fc.boolean())
      .map(([name, on]): readonly ClusterFault[] => [{ kind: 'cut', host: name, on }]),
  },
  of('crash').map((one) => [one]),
  of('killQemu').map((one) => [one]),
  { weight: 2, arbitrary: change.map((one) => [one]) },
  // Recorded, and perhaps not done yet; and changed again.
  {
    weight: 4,
    arbitrary: fc
      .tuple(change, of('step'), fc.constantFrom(2, 3), fc.option(change))
      .map(([one, step, times, other]): readonly ClusterFault[] => {
        return [one, ...Array<ClusterFault>(times).fill(step), ...(other ? [other] : [])]
      }),
  },
)
/** What is wanted changes, and changes back at some point of what the agent does about it. */
const flip = fc
  .tuple(host, fc.boolean(), fc.integer({ min: 1, max: 4 }))
  .map(([name, up, times]): readonly ClusterFault[] => [
    { kind: 'recovery', to: up ? 'Failover' : 'Manual' },
    ...Array<ClusterFault>(times).fill({ kind: 'step', host: name }),
    { kind: 'recovery', to: up ? 'Manual' : 'Failover' },
  ])
const many = fc
  .array(fc.oneof({ weight: 9, arbitrary: faults }, flip), { maxLength: 25 })
  .map((those): readonly ClusterFault[] => those.flat())
/** A person's word that is not so comes late: what was before must hold without it. */
const late = fc.oneof(
  { weight: 3, arbitrary: fc.constant<readonly ClusterFault[]>([]) },
  {
    weight: 1,
    arbitrary: fc.tuple(of('lie'), many).map(([lie, those]) => [lie, ...leads, ...leads, ...those]),
  },
)
/** Placed and running, or not yet. */
const begin = fc.constantFrom<(readonly ClusterFault[])[]>(
  [],
  [...leads, ...Array.from({ length: 4 }, () => pass('host-a'))],
  // The launch is recorded, and not made yet.
  [...leads, { kind: 'step', host: 'host-a' }, { kind: 'step', host: 'host-a' }],
)

/** Lets everything run until nothing changes any more; @returns whether that came. */
function settles(cluster: Cluster): boolean {
  cluster.heal()
  const look = () => JSON.stringify([cluster.vm.status, cluster.qemus.map(({ pid, state }) => [pid, state])])
  for (let round = 0, same = 0; round < 200; round += 1) {
    const before = look()
    for (const name of names) cluster.pass(name)
    cluster.leader()
    cluster.leader()
    cluster.tick(2_000)
    same = look() === before ? same + 1 : 0
    // Longer than every grace period and back-off.
    if (same === 3) cluster.tick(400_000)
    if (same === 6) return true
  }
  return false
}

function property(parts: Partial<Parts> = {}) {
  const all: Parts = { plan, strayWords, requireTenure, ...parts }
  return fc.property(
    fc.constantFrom('Always' as const, 'RerunOnFailure' as const),
    fc.constantFrom('Manual' as const, 'Failover' as const),
    begin,
    many,
    late,
    (strategy, onHostLoss, first, then, last) => {
      const cluster = new Cluster(all, strategy, onHostLoss)
      for (const one of [...first, ...then, ...last]) {
        cluster.apply(one)
        if (!cluster.lied && cluster.qemus.length > 1) throw new Error('two QEMUs for one machine')
      }
      expect(settles(cluster), 'settles').toBe(true)
      const { status } = cluster.vm
      const here = cluster.hosts[status?.hostName as HostName]
      expect(here, 'it has a host').toBeDefined()
      expect(cluster.qemus).toHaveLength(status?.power?.desired === 'Up' ? 1 : 0)
      expect(here.qemus, 'it runs where it is placed').toHaveLength(cluster.qemus.length)
      if (status?.phase === 'Running') {
        expect(status.placementEpoch).toBe(here.guard?.epoch)
        expect(status.onHostLoss).toBe(cluster.vm.spec.recovery.onHostLoss)
        expect(here.qemus[0]?.record.recovery.onHostLoss, 'launch.json').toBe(status.onHostLoss)
      }
    },
  )
}

const single: Tenure = { state: 'single' }
const always: Tenure = { state: 'held', epoch: 1, leftMs: 5_000 }

describe('a machine, two hosts that may be cut off, and a leader that takes it from one to the other', () => {
  test('runs once, and settles where it is placed', () => {
    fc.assert(property(), { numRuns: 4_000 })
  }, 240_000)

  const broken: Record<string, Partial<Parts>> = {
    'a plan that ignores the lease at a launch': {
      plan: (vm, seen, env) => {
        const epoch = seen.tenure.state === 'held' ? seen.tenure.epoch : (vm.status?.placementEpoch ?? 1)
        return plan(vm, { ...seen, tenure: { ...always, epoch } }, env)
      },
    },
    'a plan that launches before the epoch is recorded': {
      plan: (vm, seen, env) => {
        const next = plan(vm, seen, env)
        const { placementEpoch: _, ...status } = next.status
        const before = vm.status?.placementEpoch
        return { ...next, status: { ...status, ...(before !== undefined && { placementEpoch: before }) } }
      },
    },
    'strays that are not stopped': { strayWords: () => undefined },
    'no check right before a guest runs': { requireTenure: () => {} },
    'a check that does not compare epochs': {
      requireTenure: (tenure) => requireTenure(tenure, tenure.state === 'held' ? tenure.epoch : undefined),
    },
    'a status that says Failover as soon as it is wished': {
      plan: (vm, seen, env) => {
        const next = plan(vm, seen, env)
        return next.status.process
          ? { ...next, status: { ...next.status, onHostLoss: vm.spec.recovery.onHostLoss } }
          : next
      },
    },
    'a status that says Failover until launch.json does not': {
      plan: (vm, seen, env) => {
        const next = plan(vm, seen, env)
        const said = seen.process.state === 'alive' && seen.process.record?.manifest.spec.recovery.onHostLoss
        return said ? { ...next, status: { ...next.status, onHostLoss: said } } : next
      },
    },
    'a machine that is given up while it is shut down': {
      plan: (vm, seen, env) => {
        const next = plan(vm, seen, env)
        if (next.status.stop?.why !== 'Move') return next
        const { hostName: _h, process: _p, launch: _l, stop: _s, ...status } = next.status
        return { ...next, status }
      },
    },
    'a host that takes every machine': {
      plan: (vm, seen, env) => plan(vm, { ...seen, tenure: single }, env),
    },
  }

  test.each(Object.entries(broken))(
    '%s: caught',
    (_name, parts) => {
      expect(fc.check(property(parts), { numRuns: 20_000 }).failed).toBe(true)
    },
    240_000,
  )
})
