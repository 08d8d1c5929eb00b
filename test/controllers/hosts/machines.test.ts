import { describe, expect, test } from 'vitest'
import { markedStatus, markOf, takenStatus, whyNotTaken } from '../../../src/controllers/hosts/machines.ts'
import type { World } from '../../../src/controllers/hosts/types.ts'
import { parse } from '../../../src/resources/parse.ts'
import { noteMisunderstood } from '../../../src/resources/understood.ts'
import { VirtualMachine } from '../../../src/resources/vm.ts'
import { at, evidence, host, lease, machine, planFor, pool, world } from './fixture.ts'

const proven = { host: 'a', epoch: 4, proof: 'Guard' } as const
const pools = [pool('shared', true), pool('local', false)]
const disk = (poolName: string) => ({
  recovery: { onHostLoss: 'Failover' },
  disks: [{ name: 'root', size: '1Gi', pool: poolName }],
})
const ready = { disks: [{ name: 'root', state: 'Ready' as const, path: '/x' }] }
const idle = { process: undefined, onHostLoss: undefined, phase: 'Stopped' as const }
const ended = { ...idle, lastExit: { reason: 'HostReboot' as const, at } }
const placed = { ...idle, phase: 'Pending' as const }
const starting = { id: 'l-2', at, bootId: 'boot' }
const deleting = { metadata: { deletionTimestamp: at } }
const manual = { recovery: { onHostLoss: 'Manual' } }

describe('whether a machine is taken from a host that is proven dead', () => {
  test.each<[string, ReturnType<typeof machine>, 'Guard' | 'Command' | 'Operator', string | undefined]>([
    ['it runs, and was promised to be stopped', machine('m'), 'Guard', undefined],
    [
      'its launch was recorded',
      machine('m', { status: { process: undefined, launch: starting } }),
      'Guard',
      undefined,
    ],
    [
      'it was never given an epoch',
      machine('m', { status: { placementEpoch: undefined } }),
      'Guard',
      undefined,
    ],
    ['it was taken up again', machine('m', { status: { placementEpoch: 4 } }), 'Guard', 'HostLost'],
    ['it is elsewhere', machine('m', { status: { hostName: 'b' } }), 'Guard', 'HostLost'],
    ['it is nowhere', machine('m', { status: { hostName: undefined } }), 'Guard', 'HostLost'],
    ['nobody promised to stop it', machine('m', { status: { onHostLoss: 'Manual' } }), 'Guard', 'HostLost'],
    ['nobody said whether', machine('m', { status: { onHostLoss: undefined } }), 'Guard', 'HostLost'],
    [
      'which need not be where the host is off',
      machine('m', { status: { onHostLoss: 'Manual' } }),
      'Command',
      undefined,
    ],
    ['or a person says so', machine('m', { status: { onHostLoss: undefined } }), 'Operator', undefined],
    ['it is to wait', machine('m', { spec: manual }), 'Operator', 'HostLost'],
    [
      'it is to wait by now, though it would have been stopped',
      machine('m', { spec: manual }),
      'Guard',
      'HostLost',
    ],
    ['it never ran', machine('m', { spec: manual, status: idle }), 'Guard', undefined],
    ['it ran, and is to wait', machine('m', { spec: manual, status: ended }), 'Operator', 'HostLost'],
    ['it ran', machine('m', { status: ended }), 'Guard', undefined],
    ['it is being deleted', machine('m', { metadata: { deletionTimestamp: at } }), 'Operator', 'HostLost'],
    ['its disks are shared', machine('m', { spec: disk('shared'), status: ready }), 'Guard', undefined],
    ['its disks are not', machine('m', { spec: disk('local'), status: ready }), 'Operator', 'StorageLost'],
    [
      'nor those of a pool that nobody declared',
      machine('m', { spec: disk('default'), status: ready }),
      'Operator',
      'StorageLost',
    ],
  ])('%s', (_, vm, proof, reason) => {
    expect(whyNotTaken(vm, { ...proven, proof }, pools)?.reason).toBe(reason)
  })
})

describe('what is done with the machines of a lost host', () => {
  const does = (vm: ReturnType<typeof machine>, more: Partial<World> = {}) =>
    planFor(
      world(60_000, {
        machines: [vm],
        pools,
        hosts: [host('a', { spec: { fencing: { mode: 'none' } } })],
        ...more,
      }),
    ).does

  test.each<[string, ReturnType<typeof machine>, string[]]>([
    ['one that runs is marked', machine('m'), ['mark']],
    ['one that does not is given up', machine('m', { status: idle }), ['giveUp']],
    [
      'though it is to wait for its host, as it never ran',
      machine('m', { spec: manual, status: idle }),
      ['giveUp'],
    ],
    [
      'not where only that host has its disk',
      machine('m', { spec: disk('local'), status: { ...idle, ...ready } }),
      ['mark'],
    ],
    ['but where none was made yet', machine('m', { spec: disk('local'), status: idle }), ['giveUp']],
    [
      'not one that ran and is to wait, though its host says now that it has ended',
      machine('m', { spec: manual, status: ended }),
      ['mark'],
    ],
    ['but one that is to be moved', machine('m', { status: ended }), ['giveUp']],
    [
      'not while it is being deleted',
      machine('m', { status: idle, metadata: { deletionTimestamp: at } }),
      ['mark'],
    ],
    [
      'not where another version stored what is not understood here',
      noteMisunderstood(machine('m', { status: placed }), 'spec.shape: Invalid value'),
      ['mark'],
    ],
    ['not where it is elsewhere', machine('m', { status: { ...idle, hostName: 'b' } }), []],
  ])('%s', (_, vm, expected) => {
    expect(does(vm)).toEqual(expected)
  })

  test.each<[string, Parameters<typeof machine>[1], string[]]>([
    ['one that was not begun yet is given up', { status: placed }, ['giveUp']],
    ['not one that was launched', { status: { ...placed, launch: starting } }, []],
    ['not one that is stopped', { status: idle }, []],
    [
      'not one with a disk that only that host has',
      { spec: disk('local'), status: { ...placed, ...ready } },
      [],
    ],
    ['one that is being deleted says what that waits for', { status: placed, ...deleting }, ['mark']],
    ['and if it is down', { status: idle, ...deleting }, ['mark']],
  ])('of a host whose agent is silent: %s', (_, more, expected) => {
    const silent = { lease: lease('a', {}, {}, { agent: 'silent' }) }
    const machines = [machine('m', more)]
    expect(planFor(world(500, { machines, pools, ...silent })).does).toEqual(expected)
    expect(planFor(world(500, { machines, pools })).does).toEqual([])
  })

  test('a deletion that waits for a silent agent names the host and the finalizer, once, and again if it is written over', () => {
    const lease_ = { lease: lease('a', {}, {}, { agent: 'silent' }) }
    const vm = machine('m', { status: { ...placed, process: undefined, launch: starting }, ...deleting })
    const { action } = planFor(world(500, { machines: [vm], ...lease_ }))
    const [{ as } = { as: undefined }] = action?.do === 'mark' ? action.machines : []
    if (!as) throw new Error('it is marked')
    expect(as).toMatchObject({ phase: 'Terminating', reason: 'AgentSilent' })
    expect(as.message).toMatch(
      /host a has a server that gives no sign of life: its QEMU runs on there.*plasmavmc\.io\//,
    )
    const said = { ...vm, status: markedStatus(vm, as, at) }
    expect(said.status.conditions).toContainEqual(
      expect.objectContaining({
        type: 'Ready',
        status: 'Unknown',
        reason: 'AgentSilent',
        message: as.message,
      }),
    )
    const marked = new Map([['vm-m', as.key]])
    const does = (one: typeof vm, tried = {}) =>
      planFor(world(500, { machines: [one], tried, ...lease_ })).does
    expect(does(said), 'by another leader').toEqual([])
    expect(does(said, { marked })).toEqual([])
    expect(does(vm, { marked }), 'not at once').toEqual([])
    expect(does(vm, { marked, overdue: new Set(['vm-m']) })).toEqual(['mark'])
  })

  test('nothing is given up under the brake, or in maintenance', () => {
    const vm = machine('m', { status: idle })
    expect(does(vm, { brakePercent: 30 })).toEqual([])
    const maintained = { lease: lease('a', {}, {}, { maintenance: at }) }
    expect(planFor(world(60_000, { machines: [vm], ...maintained })).does).toEqual([])
  })

  test('a mark is written once, and anew when it says something else', () => {
    const vm = machine('m')
    const { action } = planFor(world(60_000, { machines: [vm] }))
    if (action?.do !== 'mark') throw new Error('it is marked')
    const [{ as } = { as: undefined }] = action.machines
    expect(as).toMatchObject({
      phase: 'Unknown',
      reason: 'HostLost',
      message: expect.stringContaining(`since ${at}`),
    })
    const marked = new Map([['vm-m', as?.key ?? '']])
    const next = { machines: [vm], tried: { marked } }
    expect(planFor(world(60_000, next)).does).toEqual(['askVotes'])
    const waits = { ...vm, spec: { ...vm.spec, recovery: { onHostLoss: 'Manual' as const } } }
    expect(planFor(world(60_000, { ...next, machines: [waits] })).does).toEqual(['mark'])
    const status = { phase: 'Unknown', reason: as?.reason, message: as?.message } as const
    expect(planFor(world(60_000, { machines: [machine('m', { status })] })).does).toEqual(['askVotes'])
  })

  test.each<[string, ReturnType<typeof machine>, RegExp]>([
    ['what is awaited', machine('m'), /once a is proven dead: see condition Fenced/],
    ['that it waits', machine('m', { spec: manual }), /waits for a, as spec.recovery.onHostLoss is Manual/],
    [
      'that nothing was promised',
      machine('m', { status: { onHostLoss: 'Manual' } }),
      /had not promised yet.*--confirm-off/,
    ],
    [
      'which disk it is',
      machine('m', { spec: disk('local'), status: ready }),
      /its disk root \(spec.disks\[0\].pool\)/,
    ],
    ['that it is being deleted', machine('m', { metadata: { deletionTimestamp: at } }), /being deleted/],
  ])('a mark says %s', (_, vm, words) => {
    expect(markOf(vm, { host: 'a', since: at, proof: 'Guard' }, pools).message).toMatch(words)
  })

  test('a mark says whose word is awaited', () => {
    expect(markOf(machine('m'), { host: 'a', since: at }, pools).message).toMatch(
      /once you say that a is off.*confirm-off/,
    )
  })

  test('those with a higher priority are taken first', () => {
    const annotations = { 'plasmavmc.io/fence': JSON.stringify(evidence().spec) }
    const fenced = lease('a', { annotations }, { holderIdentity: 'fenced', leaseTransitions: 4 })
    const [low, high, older] = [
      machine('low'),
      machine('high', { spec: { recovery: { onHostLoss: 'Failover' }, priority: 5 } }),
      machine('older', { metadata: { creationTimestamp: '2025-01-01T00:00:00Z' } }),
    ]
    const marked = new Map(
      ['low', 'high', 'older'].map((name) => [
        `vm-${name}`,
        markOf(machine(name), { host: 'a', since: at, proof: 'Guard' }, []).key,
      ]),
    )
    const all = { lease: fenced, evidence: [evidence()], machines: [low, high, older], tried: { marked } }
    const { action } = planFor(world(60_000, all))
    if (action?.do !== 'takeMachines') throw new Error('they are taken')
    expect(action.machines.map(({ metadata }) => metadata.name)).toEqual(['high', 'older', 'low'])
    const handled = new Map(['low', 'high', 'older'].map((name) => [`vm-${name}`, '9']))
    expect(planFor(world(60_000, { ...all, tried: { marked, handled } })).does).toEqual([])
  })
})

describe('what is written of a machine that is taken', () => {
  test('its host, and what only that could know, is gone; it waits for another', () => {
    const vm = machine('m', { status: { pausedByUser: true, evidence: 'a-1', restarts: 2 } })
    const status = takenStatus(vm, 'a', at, proven)
    for (const gone of ['hostName', 'placementEpoch', 'process', 'launch', 'onHostLoss', 'pausedByUser'])
      expect(status).not.toHaveProperty(gone)
    expect(status).toMatchObject({
      ...{ phase: 'Pending', reason: 'HostLost', evidence: 'a-4', restarts: 2 },
      lastExit: { reason: 'HostLost', at, launchId: 'l-1', message: expect.stringContaining('a-4') },
    })
    expect(parse(VirtualMachine, { ...vm, status })).toMatchObject({ ok: true })
  })

  test('of one that did not run no end is told', () => {
    const status = takenStatus(machine('m', { status: idle }), 'a', at)
    expect(status).toMatchObject({ phase: 'Pending', reason: 'HostLost' })
    expect(status).not.toHaveProperty('lastExit')
    expect(status).not.toHaveProperty('evidence')
  })

  test('conditions of others stay', () => {
    const scheduled = {
      type: 'Scheduled',
      status: 'True',
      reason: 'Placed',
      message: '',
      lastTransitionTime: at,
    } as const
    const { conditions } = takenStatus(machine('m', { status: { conditions: [scheduled] } }), 'a', at, proven)
    expect(conditions.map(({ type, status }) => `${type}=${status}`)).toEqual([
      'Scheduled=True',
      'Ready=False',
    ])
  })

  test('one that was being stopped is not started elsewhere, one that was being restarted is', () => {
    const power = { strategy: 'Manual', desired: 'Up' } as const
    const of = (why: string) =>
      takenStatus(machine('m', { status: { power, stop: { why, at, graceSeconds: 30 } } }), 'a', at, proven)
    expect(of('Stop').power?.desired).toBe('Down')
    expect(of('Restart').power?.desired).toBe('Up')
    expect(of('Move').power?.desired).toBe('Up')
    expect(of('Stop')).not.toHaveProperty('stop')
  })
})
