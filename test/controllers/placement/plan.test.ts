import { describe, expect, test } from 'vitest'
import { plan } from '../../../src/controllers/placement/plan.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'
import { vmFinalizer } from '../../../src/resources/vm.ts'
import { fenced, host, labelled, lease, machine, placed, pool, time, world } from './fixture.ts'

/** Who goes where, in the order of decision. */
function given(of: Parameters<typeof world>[0]): string[] {
  return plan(world(of)).assignments.map(({ vm, host: name }) => `${vm.metadata.name}@${name}`)
}

/** Where a machine goes. */
const where = (vm: VirtualMachine, of: Parameters<typeof world>[0]) =>
  given({ ...of, machines: [...(of.machines ?? []), vm] })[0]?.split('@')[1]

const web = labelled({ app: 'web' })

describe('turns', () => {
  const one = { hosts: [host('a', {}, { memory: '1Gi' })] }

  test('a higher priority comes first', () => {
    const machines = [machine('low'), machine('high', { priority: 5 }), machine('negative', { priority: -1 })]
    expect(given({ ...one, machines })).toEqual(['high@a'])
  })

  test('of equals the older one, then the first by key', () => {
    const young = machine('a-young', {}, undefined, { creationTimestamp: time(1_000) })
    expect(given({ hosts: [host('a')], machines: [young, machine('z'), machine('b')] })).toEqual([
      'b@a',
      'z@a',
      'a-young@a',
    ])
  })

  test('each decision counts for the next', () => {
    const hosts = [host('a', {}, { memory: '2Gi' }), host('b', {}, { memory: '1Gi' })]
    const machines = ['1', '2', '3', '4'].map((name) => machine(name))
    const { assignments, unplaced } = plan(world({ hosts, machines }))
    expect(assignments.map(({ host: name }) => name).sort()).toEqual(['a', 'a', 'b'])
    expect(unplaced.map(({ vm }) => vm.metadata.name)).toEqual(['4'])
  })

  test('one that finds no host holds up nobody', () => {
    const machines = [machine('huge', { priority: 9, memory: '1Ti' }), machine('small')]
    expect(given({ ...one, machines })).toEqual(['small@a'])
  })
})

describe('many that ask the same', () => {
  /** How often a host is looked at. */
  function looks(machines: readonly VirtualMachine[], memory = '1Gi'): number {
    const one = host('a', {}, { memory })
    let count = 0
    const looked = {
      ...one,
      get status() {
        count += 1
        return one.status
      },
    }
    expect(plan(world({ hosts: [looked], machines })).unplaced).toHaveLength(machines.length)
    return count
  }
  const times = (count: number, spec: Record<string, unknown>, meta = {}) =>
    Array.from({ length: count }, (_, i) => machine(`m${i}`, { memory: '2Gi', ...spec }, undefined, meta))

  test('no host is looked at once more for each that it has no room for', () => {
    expect(looks(times(100, {}))).toBe(looks(times(1, {})))
  })

  test('nor for each that must not be beside who is there', () => {
    const spec = { affinity: { together: [{ labels: { app: 'db' } }] } }
    expect(looks(times(100, spec, web), '8Gi')).toBe(looks(times(1, spec, web), '8Gi'))
  })
})

describe('whom it gives a host', () => {
  const hosts = [host('a'), host('b')]

  test('none that has one, even where that is lost or gone', () => {
    const machines = [placed('x', 'a'), placed('y', 'gone')]
    expect(plan(world({ hosts: [host('b')], machines })).assignments).toEqual([])
    expect(plan(world({ hosts, machines, leases: [fenced('a')] })).assignments).toEqual([])
  })

  test('also one that is to stay down', () => {
    expect(where(machine('x', { runStrategy: 'Halted' }), { hosts })).toBe('a')
  })

  test('none that is being deleted, unless somebody has to remove what there is of it', () => {
    const going = { deletionTimestamp: time() }
    expect(where(machine('x', {}, undefined, going), { hosts })).toBeUndefined()
    expect(where(machine('x', {}, undefined, { ...going, finalizers: ['other'] }), { hosts })).toBeUndefined()
    expect(where(machine('x', {}, undefined, { ...going, finalizers: [vmFinalizer] }), { hosts })).toBe('a')
  })

  test.each([
    { launch: { id: 'l', at: time(), bootId: 'b' } },
    {
      process: {
        pid: 1,
        startTime: 1,
        bootId: 'b',
        launchId: 'l',
        accelerator: 'tcg',
        startedAt: time(),
        specHash: '',
      },
    },
  ])('none that may run somewhere', (status) => {
    const [told] = plan(world({ hosts, machines: [machine('x', {}, status)] })).unplaced
    expect(told).toMatchObject({
      reason: 'ProcessRecorded',
      message: expect.stringContaining('tells of a QEMU'),
    })
  })

  test('with the epoch of the lease that its host holds', () => {
    const leases = [lease('a', 7)]
    expect(plan(world({ hosts, leases, machines: [machine('x')] })).assignments).toMatchObject([
      { host: 'a', epoch: 7 },
    ])
  })
})

describe('a machine made for a QEMU that runs already', () => {
  const hosts = [host('a'), host('b')]
  const annotations = { 'plasmavmc.io/adopted-from': 'b' }
  const told = { reason: 'Adopted', message: 'its QEMU was found on host b, which takes it up itself' }

  test('is left to the host of that one, also while it is away', () => {
    const adopted = machine('x', {}, undefined, { annotations })
    for (const of of [{ hosts }, { hosts: [host('a')] }, { hosts, leases: [lease('a'), fenced('b')] }]) {
      const { assignments, unplaced } = plan(world({ ...of, machines: [adopted] }))
      expect(assignments).toEqual([])
      expect(unplaced).toMatchObject([told])
    }
  })

  test('is known by what its host tells of orphans too', () => {
    const orphans = [{ uid: 'uid-x', pid: 1, name: 'default/x' }]
    const b = { ...host('b'), status: { ...host('b').status!, orphans } }
    const { assignments, unplaced } = plan(
      world({ hosts: [host('a'), b], machines: [machine('x'), machine('y')] }),
    )
    expect(unplaced).toMatchObject([told])
    expect(assignments.map(({ vm }) => vm.metadata.name)).toEqual(['y'])
  })

  test('is as any other once it has had a host', () => {
    expect(where(machine('x', {}, { disksHost: 'b' }, { annotations }), { hosts: [host('a')] })).toBe('a')
  })
})

describe('disks that only one host has', () => {
  const hosts = [host('a'), host('b')]
  const disks = [{ name: 'root', size: '1Gi' }]
  const made = [{ name: 'root', path: '/p/root.qcow2', state: 'Ready' as const }]

  test('bring it back there, however full the other is not', () => {
    const vm = machine('x', { disks }, { disksHost: 'b', disks: made })
    expect(where(vm, { hosts })).toBe('b')
    expect(plan(world({ hosts: [host('a')], machines: [vm] })).unplaced[0]?.message).toBe(
      '0 of 1 hosts fit: a: spec.disks[0].pool: disk root is on host b alone',
    )
  })

  test('bring it nowhere while nobody knows where they are', () => {
    const vm = machine('x', { disks }, { disks: made })
    expect(plan(world({ hosts, machines: [vm] })).unplaced[0]?.message).toContain('no status.disksHost says')
  })

  test('do not matter where they are shared, or not made yet', () => {
    const elsewhere = { disksHost: 'gone', disks: made }
    const shared = machine('x', { disks: [{ ...disks[0], pool: 'nfs' }] }, elsewhere)
    expect(where(shared, { hosts, pools: [pool('nfs', true)] })).toBe('a')
    expect(where(machine('x', { disks }, { disksHost: 'gone' }), { hosts })).toBe('a')
  })
})

describe('the better host', () => {
  test('has the greater share left', () => {
    const hosts = [host('a'), host('b')]
    expect(where(machine('x'), { hosts, machines: [placed('y', 'a')] })).toBe('b')
    expect(where(machine('x'), { hosts: [host('a'), host('b', {}, { memory: '16Gi' })] })).toBe('b')
    expect(where(machine('x'), { hosts: [host('b'), host('a')] }), 'of equals the first').toBe('a')
  })

  test('has whom it would rather be with, though it is fuller', () => {
    const hosts = [host('a'), host('b')]
    const machines = [placed('db', 'b', { memory: '6Gi' }, labelled({ app: 'db' }))]
    const term = { labels: { app: 'db' }, required: false }
    expect(where(machine('x', { affinity: { together: [term] } }), { hosts, machines })).toBe('b')
    expect(where(machine('x', { affinity: { apart: [term] } }), { hosts, machines })).toBe('a')
  })

  test('is not that of one that would rather be without it', () => {
    const hosts = [host('a'), host('b', {}, { memory: '99Gi' })]
    const term = { labels: { app: 'web' }, required: false }
    const machines = [placed('shy', 'b', { affinity: { apart: [term] } })]
    expect(where(machine('x', {}, undefined, web), { hosts, machines })).toBe('a')
    expect(where(machine('x'), { hosts, machines })).toBe('b')
  })

  test('is where fewer of its kind are', () => {
    const hosts = [
      host('a', {}, {}, { zone: '1' }),
      host('b', {}, {}, { zone: '2' }),
      host('c', {}, { memory: '99Gi' }),
    ]
    const spread = [{ labels: { app: 'web' }, topologyKey: 'zone' }]
    const machines = [placed('w', 'a', {}, web)]
    expect(where(machine('x', { spread }, undefined, web), { hosts, machines })).toBe('b')
  })

  test('does not ask to be avoided', () => {
    const taints = [{ key: 'old', effect: 'PreferNoSchedule' }]
    const hosts = [host('a', { taints }, { memory: '99Gi' }), host('b')]
    expect(where(machine('x'), { hosts })).toBe('b')
    expect(where(machine('x', { tolerations: [{ key: 'old' }] }), { hosts })).toBe('a')
    expect(where(machine('x'), { hosts: hosts.slice(0, 1) })).toBe('a')
  })
})

test('a group that belongs together begins somewhere and stays there', () => {
  const hosts = [host('a'), host('b')]
  const affinity = { together: [{ labels: { app: 'web' } }] }
  const machines = ['1', '2', '3'].map((name) => machine(name, { affinity }, undefined, web))
  expect(given({ hosts, machines })).toEqual(['1@a', '2@a', '3@a'])
})

test('machines that keep apart go to a host each, and the last to none', () => {
  const hosts = [host('a'), host('b')]
  const affinity = { apart: [{ labels: { app: 'web' } }] }
  const machines = ['1', '2', '3'].map((name) => machine(name, { affinity }, undefined, web))
  expect(given({ hosts, machines })).toEqual(['1@a', '2@b'])
})

test('what a lost host had is taken by the others, although spread is required', () => {
  const hosts = [host('a'), host('b'), host('c')]
  const spread = [{ labels: { app: 'web' }, required: true }]
  const kept = [placed('1', 'b', {}, web), placed('2', 'c', {}, web)]
  const lost = machine('3', { spread }, { disksHost: 'a' }, web)
  const leases = [fenced('a'), lease('b'), lease('c')]
  expect(given({ hosts, leases, machines: [...kept, lost] })).toEqual(['3@b'])
})

describe('why none fits', () => {
  const why = (of: Parameters<typeof world>[0], spec = {}) =>
    plan(world({ ...of, machines: [...(of.machines ?? []), machine('x', spec)] })).unplaced[0]?.message

  test('there is none', () => {
    expect(why({})).toBe('there is no host')
  })

  test('each of a few by name, those with the same reason together', () => {
    const hosts = [
      host('c', { unschedulable: true }),
      host('a', { unschedulable: true }),
      host('b', {}, { memory: '100Mi' }),
    ]
    expect(why({ hosts })).toBe(
      '0 of 3 hosts fit: a, c: cordoned (spec.unschedulable); b: memory: 1Gi wanted, 100Mi free of 100Mi',
    )
  })

  test('many by kind, the most frequent first', () => {
    const full = Array.from({ length: 90 }, (_, i) => host(`f${i}`, {}, { memory: `${i + 10}Mi` }))
    const hosts = [host('z', { unschedulable: true }), ...full]
    expect(why({ hosts })).toBe(
      '0 of 91 hosts fit: 90 hosts such as f0: memory: 1Gi wanted, 10Mi free of 10Mi; z: cordoned (spec.unschedulable)',
    )
  })

  test('never at any length', () => {
    const hosts = [host('a', {}, {}, { x: 'y'.repeat(5_000) })]
    expect(why({ hosts }, { hostSelector: { x: 'z' } })).toHaveLength(1_000)
  })
})
