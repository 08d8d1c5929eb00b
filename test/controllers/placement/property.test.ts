import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Placement, plan, type World } from '../../../src/controllers/placement/plan.ts'
import { bytesOf } from '../../../src/resources/quantity.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import { fenced, host, lease, machine, ready, time, world } from './fixture.ts'
import { repel, wrongIn } from './oracle.ts'

const names = ['a', 'b', 'c', 'd']
const apps = fc.constantFrom('web', 'db')
const labels = apps.map((app) => ({ app }))
const rarely = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })

const hosts = fc.subarray(names, { minLength: 1 }).chain((some) =>
  fc.tuple(
    ...some.map((name) =>
      fc.record({
        name: fc.constant(name),
        zone: fc.constantFrom('1', '2', undefined),
        memory: fc.constantFrom('2Gi', '4Gi', '8Gi'),
        cpuPercent: fc.constantFrom(50, 100, 400),
        memoryPercent: fc.constantFrom(50, 100, 200),
        tainted: rarely(fc.constantFrom('NoSchedule', 'PreferNoSchedule')),
        state: fc.constantFrom('up', 'up', 'up', 'up', 'cordoned', 'silent', 'fenced', 'leaseless'),
      }),
    ),
  ),
)

const spread = fc.record({
  labels,
  topologyKey: fc.constantFrom('zone', 'kubernetes.io/hostname'),
  maxSkew: fc.constantFrom(1, 2),
  required: fc.boolean(),
})
const neighbours = fc.array(fc.record({ labels, required: fc.boolean() }), { maxLength: 1 })

const guest = fc.record({
  app: fc.option(apps, { nil: undefined, freq: 5 }),
  namespace: fc.constantFrom('default', 'default', 'other'),
  age: fc.constantFrom(0, 1_000),
  on: rarely(fc.constantFrom(...names)),
  disksOn: rarely(fc.constantFrom(...names)),
  spec: fc.record({
    cores: fc.constantFrom(1, 2, 3),
    memory: fc.constantFrom('512Mi', '1Gi', '3Gi'),
    priority: fc.constantFrom(-1, 0, 5),
    together: rarely(neighbours),
    apart: neighbours,
    spread: fc.array(spread, { maxLength: 1 }),
    zone: rarely(fc.constantFrom('1', '2')),
    tolerant: fc.boolean(),
  }),
})

type Guest = typeof guest extends fc.Arbitrary<infer T> ? T : never

function guestOf(one: Guest, index: number): VirtualMachine {
  const { cores, memory, priority, together = [], apart, zone, tolerant } = one.spec
  const disks = one.disksOn === undefined ? [] : [{ name: 'root', size: '1Gi' }]
  const spec = {
    ...{ cpu: { cores }, memory, priority, affinity: { together, apart }, spread: one.spec.spread, disks },
    ...(zone && { hostSelector: { zone } }),
    ...(tolerant && { tolerations: [{ key: 'old' }] }),
  }
  const status = {
    ...(one.on && { hostName: one.on, placementEpoch: 1 }),
    ...(one.disksOn && {
      disksHost: one.disksOn,
      disks: [{ name: 'root', path: '/root.qcow2', state: 'Ready' as const }],
    }),
  }
  return machine(`m${index}`, spec, status, {
    ...{ namespace: one.namespace, creationTimestamp: time(-one.age) },
    ...(one.app && { labels: { app: one.app } }),
  })
}

const required = <T extends object>(term: T) => ({ ...term, required: true })

const worlds: fc.Arbitrary<World> = fc
  .tuple(hosts, fc.array(guest, { maxLength: 12 }))
  .map(([some, guests]) =>
    world({
      hosts: some.map(({ name, zone, memory, cpuPercent, memoryPercent, tainted, state }) =>
        host(
          name,
          {
            overcommit: { cpuPercent, memoryPercent },
            unschedulable: state === 'cordoned',
            taints: tainted ? [{ key: 'old', effect: tainted }] : [],
          },
          {
            memory,
            ...(state === 'silent' && {
              conditions: [{ ...ready, status: 'Unknown', reason: 'LeaseExpired' }],
            }),
          },
          zone === undefined ? {} : { zone },
        ),
      ),
      leases: some.flatMap(({ name, state }) =>
        state === 'leaseless' ? [] : [state === 'fenced' ? fenced(name) : lease(name)],
      ),
      machines: guests.map(guestOf),
    }),
  )

const options = { numRuns: 1_000 }

test('every machine in turn gets a host that fits then, or none where none does', () => {
  fc.assert(
    fc.property(worlds, (one) => {
      expect(wrongIn(plan(one), one)).toBeUndefined()
    }),
    options,
  )
})

test('no host is given more than it has, and nobody a neighbour to keep apart from', () => {
  fc.assert(
    fc.property(worlds, (one) => {
      const { assignments } = plan(one)
      for (const { metadata, spec, status } of one.hosts) {
        const { name } = metadata
        const given = assignments.filter((assignment) => assignment.host === name).map(({ vm }) => vm)
        if (given.length === 0) continue
        const there = [...one.machines.filter((vm) => vm.status?.hostName === name), ...given]
        const bytes = there.reduce((sum, vm) => sum + bytesOf(vm.spec.memory), 0)
        const cpus = there.reduce((sum, vm) => sum + vm.spec.cpu.cores, 0)
        expect(bytes * 100).toBeLessThanOrEqual(bytesOf(status?.memory ?? 0) * spec.overcommit.memoryPercent)
        expect(cpus * 100).toBeLessThanOrEqual((status?.cpus ?? 0) * spec.overcommit.cpuPercent)
        for (const vm of given)
          expect(there.filter((other) => repel(vm, other)).map((other) => other.metadata.name)).toEqual([])
      }
    }),
    options,
  )
})

const words = ({ assignments, unplaced }: Placement) => [
  assignments.map(({ vm, host: at, epoch }) => `${vm.metadata.name}@${at}#${epoch}`),
  unplaced.map(({ vm, message }) => `${vm.metadata.name}: ${message}`),
]

test('the order of what is given does not matter, nor that of leases, labels or pools', () => {
  const shuffled = worlds.chain((one) =>
    fc
      .tuple(
        fc.shuffledSubarray([...one.machines], { minLength: one.machines.length }),
        fc.shuffledSubarray([...one.hosts], { minLength: one.hosts.length }),
      )
      .map(([machines, some]) => [one, { ...one, machines, hosts: some }] as const),
  )
  fc.assert(
    fc.property(shuffled, ([one, other]) => {
      expect(words(plan(other))).toEqual(words(plan(one)))
    }),
    options,
  )
})

/** They differ in nothing but who they are, and whom they want beside them. */
const alike = worlds.map((one) => ({
  ...one,
  hosts: one.hosts.map((each) => ({ ...each, spec: { ...each.spec, taints: [], unschedulable: false } })),
  machines: one.machines.map((vm) => {
    const { affinity, spread: spreads } = vm.spec
    const must = {
      affinity: { ...affinity, apart: affinity.apart.map(required) },
      spread: spreads.map(required),
    }
    const same = { cpu: { cores: 1 }, memory: '64Mi', ...must }
    return vm.status?.hostName === undefined
      ? machine(vm.metadata.name, same, undefined, vm.metadata)
      : { ...vm, spec: { ...machine('x', same).spec } }
  }),
}))

test.each([
  ['any', worlds],
  ['alike', alike],
])('that machines ask the same changes nothing of what each is told: %s', (_which, some) => {
  // Tolerates a taint that nobody has: none asks what another asks.
  const alone = (vm: VirtualMachine): VirtualMachine => {
    const tolerations = [...vm.spec.tolerations, { key: `only-${vm.metadata.name}` }]
    return { ...vm, spec: { ...vm.spec, tolerations } }
  }
  fc.assert(
    fc.property(some, (one) => {
      expect(words(plan(one))).toEqual(words(plan({ ...one, machines: one.machines.map(alone) })))
    }),
    options,
  )
})

test('a second pass over what the first made has nothing to do', () => {
  fc.assert(
    fc.property(worlds, (one) => {
      const { assignments } = plan(one)
      const given = new Map(assignments.map(({ vm, host: at }) => [vm, at]))
      const machines = one.machines.map((vm) => {
        const at = given.get(vm)
        const status = { restarts: 0, disks: [], networks: [], conditions: [], ...vm.status }
        return at === undefined ? vm : { ...vm, status: { ...status, hostName: at, disksHost: at } }
      })
      const again = { ...one, machines }
      // Those that were waiting for one to come together with may go on.
      for (const { vm } of plan(again).assignments)
        expect(vm.spec.affinity.together.some(({ required }) => required) || vm.spec.spread.length > 0).toBe(
          true,
        )
      expect(wrongIn(plan(again), again)).toBeUndefined()
    }),
    options,
  )
})

/** The same planner with a mistake. */
const mistakes: Readonly<Record<string, (one: World) => Placement>> = {
  'forgets what it has just decided': (one) => {
    const waiting = one.machines.filter(({ status }) => status?.hostName === undefined)
    const alone = waiting.map((vm) =>
      plan({ ...one, machines: [...one.machines.filter((other) => !waiting.includes(other)), vm] }),
    )
    return {
      assignments: alone.flatMap(({ assignments }) => assignments),
      unplaced: alone.flatMap(({ unplaced }) => unplaced),
    }
  },
  'forgets those that are there': (one) =>
    plan({ ...one, machines: one.machines.filter(({ status }) => status?.hostName === undefined) }),
  'takes no notice of priority': (one) => {
    const flat = new Map(one.machines.map((vm) => [{ ...vm, spec: { ...vm.spec, priority: 0 } }, vm]))
    const { assignments, unplaced } = plan({ ...one, machines: [...flat.keys()] })
    const real = (vm: VirtualMachine) => flat.get(vm) as VirtualMachine
    return {
      assignments: assignments.map((each) => ({ ...each, vm: real(each.vm) })),
      unplaced: unplaced.map((each) => ({ ...each, vm: real(each.vm) })),
    }
  },
}

test.each(Object.entries(mistakes))('the check finds a planner that %s', (_what, planner) => {
  const result = fc.check(
    fc.property(worlds, (one) => wrongIn(planner(one), one) === undefined),
    options,
  )
  expect(result.failed).toBe(true)
})
