import { describe, expect, test } from 'vitest'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import {
  fenced,
  host,
  labelled,
  lease,
  machine,
  now,
  placed,
  ready,
  refusals,
  time,
  world,
} from './fixture.ts'

/** What host `a` says. */
function why(vm: VirtualMachine, of: Parameters<typeof world>[0]): string | undefined {
  return refusals(vm, world(of)).get('a')?.message
}

const vm = machine('new')
const web = labelled({ app: 'web' })

type Row = readonly [
  what: string,
  vm: VirtualMachine,
  world: Parameters<typeof world>[0],
  message: string | undefined,
]

function table(rows: readonly Row[]): void {
  test.each(rows)('%s', (_what, one, of, message) => {
    expect(why(one, of)).toBe(message)
  })
}

describe('the host as such', () => {
  const tainted = (...taints: object[]) => ({ hosts: [host('a', { taints })] })
  const gpu = { key: 'gpu', value: 'yes', effect: 'NoSchedule' }
  const tolerant = (...tolerations: object[]) => machine('new', { tolerations })
  const untolerated = 'taint gpu=yes:NoSchedule is not among spec.tolerations'
  table([
    ['fits', vm, { hosts: [host('a')] }, undefined],
    [
      'is not Ready',
      vm,
      { hosts: [host('a', {}, { conditions: [{ ...ready, status: 'Unknown', reason: 'LeaseExpired' }] })] },
      'not Ready: condition Ready is Unknown, LeaseExpired',
    ],
    [
      'has not reported',
      vm,
      { hosts: [host('a', {}, { conditions: [] })] },
      'not Ready: it has not reported yet',
    ],
    [
      'has not said what it has',
      vm,
      { hosts: [{ ...host('a'), status: { ...host('a').status!, cpus: undefined } }] },
      'cpu: it has not said what it has (status.cpus, status.memory)',
    ],
    ['has no lease', vm, { hosts: [host('a')], leases: [] }, 'it has no lease'],
    [
      'lost its lease',
      vm,
      { hosts: [host('a')], leases: [fenced('a')] },
      'its lease was taken from it, as it was lost',
    ],
    [
      'has a lease that another holds',
      vm,
      { hosts: [host('a')], leases: [lease('a', 1, 'b')] },
      'its lease is held by "b"',
    ],
    [
      'holds its lease as one installation',
      vm,
      { hosts: [host('a')], leases: [lease('a', 1, 'a/1f')] },
      undefined,
    ],
    ['gave its lease up', vm, { hosts: [host('a')], leases: [lease('a', 1, '')] }, 'nobody holds its lease'],
    ['is cordoned', vm, { hosts: [host('a', { unschedulable: true })] }, 'cordoned (spec.unschedulable)'],
    [
      'is under maintenance',
      vm,
      { hosts: [host('a', { maintenance: { until: time(60_000) } })] },
      `under maintenance until ${time(60_000)} (spec.maintenance)`,
    ],
    [
      'was under maintenance',
      vm,
      { hosts: [host('a', { maintenance: { until: time(-1_000) } })] },
      undefined,
    ],
    [
      'is under maintenance until a time that nobody can read',
      vm,
      { hosts: [host('a', { maintenance: { until: 'tomorrow' } })] },
      'under maintenance until tomorrow (spec.maintenance)',
    ],
    ['has a taint', vm, tainted(gpu), untolerated],
    [
      'has one without a value',
      vm,
      tainted({ key: 'x', effect: 'NoSchedule' }),
      'taint x:NoSchedule is not among spec.tolerations',
    ],
    ['has one that is tolerated', tolerant({ key: 'gpu', value: 'yes' }), tainted(gpu), undefined],
    ['has one of another value', tolerant({ key: 'gpu', value: 'no' }), tainted(gpu), untolerated],
    [
      'has one whose effect is not tolerated',
      tolerant({ effect: 'PreferNoSchedule' }),
      tainted(gpu),
      untolerated,
    ],
    ['has one, and everything is tolerated', tolerant({}), tainted(gpu), undefined],
    [
      'has two, of which one is tolerated',
      tolerant({ key: 'x' }),
      tainted({ ...gpu, key: 'x' }, gpu),
      untolerated,
    ],
    ['has a taint that only asks', vm, tainted({ ...gpu, effect: 'PreferNoSchedule' }), undefined],
  ])
})

describe('labels and accelerator', () => {
  const ssd = (labels: Record<string, string>) => ({ hosts: [host('a', {}, {}, labels)] })
  const wants = (hostSelector: object) => machine('new', { hostSelector })
  table([
    ['has the label', wants({ disk: 'ssd' }), ssd({ disk: 'ssd' }), undefined],
    [
      'has another value',
      wants({ disk: 'ssd' }),
      ssd({ disk: 'hdd' }),
      'spec.hostSelector wants disk=ssd, it has disk=hdd',
    ],
    ['has none', wants({ disk: 'ssd' }), ssd({}), 'spec.hostSelector wants disk=ssd, it has no label disk'],
    [
      'no label of every object',
      wants({ constructor: 'x' }),
      ssd({}),
      'spec.hostSelector wants constructor=x, it has no label constructor',
    ],
    ['has its name without a label', wants({ 'kubernetes.io/hostname': 'a' }), ssd({}), undefined],
    [
      'has its name whatever its label says',
      wants({ 'kubernetes.io/hostname': 'b' }),
      ssd({ 'kubernetes.io/hostname': 'b' }),
      'spec.hostSelector wants kubernetes.io/hostname=b, it has kubernetes.io/hostname=a',
    ],
    [
      'is too slow',
      machine('new', { accelerator: 'kvm' }),
      { hosts: [host('a')] },
      'spec.accelerator is kvm, it has tcg',
    ],
    [
      'is fast',
      machine('new', { accelerator: 'kvm' }),
      { hosts: [host('a', {}, { accelerator: 'kvm' })] },
      undefined,
    ],
    [
      'is fast, and need not be',
      machine('new', { accelerator: 'tcg' }),
      { hosts: [host('a', {}, { accelerator: 'kvm' })] },
      undefined,
    ],
  ])
})

describe('processors and memory', () => {
  const big = (cores: number) => machine('new', { cpu: { cores } })
  const hosts = [host('a')]
  table([
    ['16 of 4 × 400 %', big(16), { hosts }, undefined],
    ['17 of 4 × 400 %', big(17), { hosts }, 'cpu: 17 wanted, 16 free of 16'],
    [
      'sockets, cores and threads multiply',
      machine('new', { cpu: { cores: 3, sockets: 3, threads: 2 } }),
      { hosts },
      'cpu: 18 wanted, 16 free of 16',
    ],
    [
      'others have some',
      big(2),
      {
        hosts,
        machines: [placed('x', 'a', { cpu: { cores: 15 } }), placed('y', 'b', { cpu: { cores: 9 } })],
      },
      'cpu: 2 wanted, 1 free of 16',
    ],
    [
      'overcommit says how many',
      big(3),
      { hosts: [host('a', { overcommit: { cpuPercent: 50 } })] },
      'cpu: 3 wanted, 2 free of 2',
    ],
    ['all the memory', machine('new', { memory: '8Gi' }), { hosts }, undefined],
    [
      'a byte more',
      machine('new', { memory: 8 * 1024 ** 3 + 1 }),
      { hosts },
      'memory: 8589934593 wanted, 8Gi free of 8Gi',
    ],
    [
      'others have most of it',
      machine('new', { memory: '512Mi' }),
      { hosts, machines: [placed('x', 'a', { memory: '8092Mi' })] },
      'memory: 512Mi wanted, 100Mi free of 8Gi',
    ],
    [
      'overcommit says how much',
      machine('new', { memory: '5Gi' }),
      { hosts: [host('a', { overcommit: { memoryPercent: 50 } })] },
      'memory: 5Gi wanted, 4Gi free of 4Gi',
    ],
    [
      'a host that has too many already is not said to have less than nothing',
      vm,
      { hosts, machines: [placed('x', 'a', { memory: '10Gi' })] },
      'memory: 1Gi wanted, 0 free of 8Gi',
    ],
  ])
})

describe('affinity', () => {
  const hosts = [host('a'), host('b')]
  const near = (required = true, of = web) =>
    machine('new', { affinity: { together: [{ labels: { app: 'db' }, required }] } }, undefined, of)
  const away = (required = true) =>
    machine('new', { affinity: { apart: [{ labels: { app: 'db' }, required }] } }, undefined, web)
  const db = labelled({ app: 'db' })
  const shy = (required: boolean) =>
    placed('shy', 'a', { affinity: { apart: [{ labels: { app: 'web' }, required }] } })
  table([
    ['the other is there', near(), { hosts, machines: [placed('db', 'a', {}, db)] }, undefined],
    [
      'the other is elsewhere',
      near(),
      { hosts, machines: [placed('db', 'b', {}, db)] },
      'affinity.together: no machine with app=db is there',
    ],
    [
      'the other is of another namespace',
      near(),
      { hosts, machines: [placed('db', 'a', {}, { ...db, namespace: 'x' })] },
      'affinity.together: no machine with app=db is there',
    ],
    ['the other is only preferred', near(false), { hosts }, undefined],
    ['it is itself the first of them', near(true, db), { hosts }, undefined],
    [
      'it is one of them, and another was first',
      near(true, db),
      { hosts, machines: [placed('db', 'b', {}, db)] },
      'affinity.together: no machine with app=db is there',
    ],
    [
      'what it keeps from is there',
      away(),
      { hosts, machines: [placed('db', 'a', {}, db)] },
      'affinity.apart: default/db with app=db is there',
    ],
    ['it only would rather', away(false), { hosts, machines: [placed('db', 'a', {}, db)] }, undefined],
    ['what it keeps from is elsewhere', away(), { hosts, machines: [placed('db', 'b', {}, db)] }, undefined],
    [
      'one that is there keeps from it',
      away(),
      { hosts, machines: [shy(true)] },
      'affinity.apart of default/shy, which is there: app=web',
    ],
    ['one that is there would rather', away(), { hosts, machines: [shy(false)] }, undefined],
    [
      'one of another namespace keeps from such as it',
      away(),
      { hosts, machines: [{ ...shy(true), metadata: { ...shy(true).metadata, namespace: 'x' } }] },
      undefined,
    ],
    [
      'each of a group keeps from the others, not from itself',
      machine('new', { affinity: { apart: [{ labels: { app: 'web' } }] } }, undefined, web),
      { hosts },
      undefined,
    ],
  ])
})

describe('spread', () => {
  const zoned = (name: string, zone: string, spec = {}) => host(name, spec, {}, { zone })
  const even = (more: object = {}) =>
    machine(
      'new',
      { spread: [{ labels: { app: 'web' }, topologyKey: 'zone', required: true, ...more }] },
      undefined,
      web,
    )
  const two = [placed('w1', 'a', {}, web), placed('w2', 'b', {}, web)]
  const zones = [zoned('a', '1'), zoned('b', '1'), zoned('c', '2')]
  table([
    ['a place with none', even(), { hosts: zones }, undefined],
    [
      'a place with two, while another has none',
      even(),
      { hosts: zones, machines: two },
      'spread: zone=1 would have 3 more with app=web than another place, at most 1',
    ],
    ['more skew is allowed', even({ maxSkew: 3 }), { hosts: zones, machines: two }, undefined],
    ['it is only preferred', even({ required: false }), { hosts: zones, machines: two }, undefined],
    [
      'the other place is no choice',
      even(),
      { hosts: [zoned('a', '1'), zoned('b', '1'), zoned('c', '2', { unschedulable: true })], machines: two },
      undefined,
    ],
    [
      'what is on a cordoned host of the place counts',
      even(),
      {
        hosts: [zoned('a', '1'), zoned('b', '1', { unschedulable: true }), zoned('c', '2')],
        machines: [two[1]!],
      },
      'spread: zone=1 would have 2 more with app=web than another place, at most 1',
    ],
    ['the host is at no place', even(), { hosts: [host('a')] }, 'spread: it has no label zone'],
    [
      'each host is a place by itself',
      even({ topologyKey: 'kubernetes.io/hostname' }),
      { hosts: zones, machines: [two[0]!] },
      'spread: kubernetes.io/hostname=a would have 2 more with app=web than another place, at most 1',
    ],
  ])
})

describe('one that is being deleted', () => {
  const going = (host: string) =>
    machine(
      'new',
      { memory: '100Gi', hostSelector: { x: 'y' }, disks: [{ name: 'root', size: '1Gi' }] },
      { disksHost: host, disks: [{ name: 'root', path: '/d/root.qcow2', state: 'Ready' }] },
      { deletionTimestamp: time() },
    )
  table([
    [
      'needs a host that removes what there is',
      going('a'),
      { hosts: [host('a', { unschedulable: true })] },
      undefined,
    ],
    [
      'which must be the one that has it',
      going('b'),
      { hosts: [host('a')] },
      'spec.disks[0].pool: disk root is on host b alone',
    ],
    ['and hold its lease', going('a'), { hosts: [host('a')], leases: [] }, 'it has no lease'],
  ])
})

test('the end of a maintenance is that of the clock given', () => {
  const of = { hosts: [host('a', { maintenance: { until: time(1_000) } })] }
  expect(why(vm, of)).toBeDefined()
  expect(why(vm, { ...of, now: now + 1_000 })).toBeUndefined()
})

test('a host that is called as the holder of lost leases is has not lost its own', () => {
  const of = (holder: string) => world({ hosts: [host('fenced')], leases: [lease('fenced', 1, holder)] })
  expect(refusals(vm, of('fenced/1f')).get('fenced')).toBeUndefined()
  expect(refusals(vm, of('fenced')).get('fenced')?.message).toContain('was taken from it')
})
