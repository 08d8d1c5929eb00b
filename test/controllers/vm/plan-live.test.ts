import { describe, expect, test } from 'vitest'
import { applied, specDiff } from '../../../src/controllers/vm/live-changes.ts'
import type { MachineFacts } from '../../../src/controllers/vm/machine-facts.ts'
import type { Observed, Plan, Tried } from '../../../src/controllers/vm/types.ts'
import type { PendingDevices } from '../../../src/host/ports.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import { alive, condition, planOf, record, recorded, runningMachine, spec, verbs } from './fixture.ts'

type Spec = Record<string, unknown>

const data = { name: 'data', size: '1Gi' }
const power = { power: { strategy: 'Always' as const, desired: 'Up' as const } }
const bus = '/machine/peripheral/hotplug0/hotplug0'

const facts = (more: Partial<MachineFacts> = {}): MachineFacts => ({
  ...{ devices: new Map(), freePorts: ['hotplug0', 'hotplug1'], nodes: new Set(), disks: new Map() },
  ...{ netdevs: new Set<string>(), forwards: new Map() },
  ...more,
})

/** The plan for a machine that runs with one spec and is to have another. */
function between(
  running: Spec,
  wanted: Spec,
  known: MachineFacts | undefined,
  seen: Partial<Observed> = {},
  state: RunState = 'running',
  pending?: PendingDevices,
): Plan {
  const launched = { ...record(spec(running)), ...(pending && { pending }) }
  const fact = alive(state, { record: launched, ...(known && { facts: known }) })
  return planOf(runningMachine(wanted, power), fact, seen)
}

const ready = { disks: [{ name: 'data', state: 'ready' as const, path: '/d/data.qcow2' }] }

/** The commands of a plan's live actions, as `name argument`. */
function commands(next: Plan): string[] {
  return next.actions.flatMap((action) => {
    if (action.do !== 'live') return []
    return action.calls.map(({ command, args }) => {
      const { 'node-name': node, id, size, 'command-line': line, watchdog } = args as Record<string, unknown>
      return `${command} ${line ?? id ?? watchdog ?? node}${size === undefined ? '' : ` ${size}`}`
    })
  })
}

const noted = (next: Plan) =>
  next.actions.flatMap((action) => (action.do === 'noteSpec' ? [action.spec] : []))

const none = { adding: [], leaving: [] }

describe('a new disk', () => {
  const empty = {}
  const adding = { adding: ['disk-data'], leaving: [] }
  const one = { disks: [data] }

  test('is made first, and no other file is touched', () => {
    const seen = { disks: [{ name: 'data', state: 'absent' as const }] }
    const next = between(empty, one, facts(), seen)
    expect(next.actions).toEqual([{ do: 'prepareDisks', only: ['data'] }])
    expect(condition(next, 'Ready')?.status).toBe('True')
    expect(condition(next, 'Synchronized')).toMatchObject({
      ...{ status: 'False', reason: 'Applying', message: 'new disk data: it is being prepared' },
    })
    expect(condition(next, 'RestartRequired')?.status).toBe('False')
  })

  test('that could not be made says why, and is tried again with back-off', () => {
    const seen = { disks: [{ name: 'data', state: 'failed' as const, message: 'no space' }] }
    const waiting = between(empty, one, facts(), { ...seen, diskRetryInMs: 5_000 })
    expect(verbs(waiting)).toEqual([])
    expect(waiting.recheckMs).toBe(5_000)
    expect(condition(waiting, 'Synchronized')?.message).toBe('new disk data: no space')
    expect(verbs(between(empty, one, facts(), seen))).toEqual(['prepareDisks'])
  })

  test('is opened and plugged into a free port', () => {
    const next = between(empty, one, facts(), ready)
    expect(commands(next)).toEqual([
      ...['blockdev-add file-data', 'blockdev-add disk-data', 'device_add disk-data'],
    ])
    expect(next.actions, 'and noted before').toMatchObject([
      { do: 'noteSpec', launchId: 'l-1', spec: spec(one), pending: { adding: ['disk-data'], leaving: [] } },
      { do: 'live', launchId: 'l-1', key: 'new disk data/plug' },
    ])
  })

  test('that is claimed by another machine is not opened', () => {
    const claim = { by: 'default/db', field: 'spec.disks[0].path', path: '/d/data.qcow2' }
    const next = between(empty, one, facts(), { ...ready, diskClaim: claim })
    expect(commands(next)).toEqual([])
    expect(condition(next, 'Synchronized')?.message).toContain('default/db')
  })

  test('nodes that are left of a try that failed are closed first', () => {
    expect(commands(between(empty, one, facts({ nodes: new Set(['file-data']) }), ready))).toEqual([
      ...[
        'blockdev-del file-data',
        'blockdev-add file-data',
        'blockdev-add disk-data',
        'device_add disk-data',
      ],
    ])
  })

  test('that QEMU still has open is closed before its file is prepared', () => {
    const seen = { disks: [{ name: 'data', state: 'absent' as const, path: '/d/data.qcow2' }] }
    const next = between(empty, one, facts({ nodes: new Set(['disk-data', 'file-data']) }), seen)
    expect(verbs(next)).not.toContain('prepareDisks')
    expect(commands(next)).toEqual(['blockdev-del disk-data', 'blockdev-del file-data'])
  })

  test('that QEMU has is noted, and told of', () => {
    const there = facts({ devices: new Map([['disk-data', bus]]) })
    const next = between(one, one, there, ready, 'running', adding)
    expect(next.actions).toMatchObject([{ do: 'noteSpec', spec: spec(one), pending: none }])
    expect(next.happenings.map(({ reason }) => reason)).toEqual(['SpecApplied'])
    expect(condition(next, 'Synchronized')?.message, 'true only once it is noted').toBe(
      'new device disk-data: done',
    )
    const after = between(one, one, undefined, ready)
    expect(condition(after, 'Synchronized')?.status).toBe('True')
    expect(after.actions).toEqual([])
  })

  test('that may be there is neither forgotten nor doubled while QEMU does not say', () => {
    const next = between(one, one, undefined, ready, 'running', adding)
    expect(next.actions).toEqual([])
    expect(condition(next, 'Synchronized')?.status).toBe('False')
  })

  test('that is no longer wanted while it may be there is taken out', () => {
    const there = facts({ devices: new Map([['disk-data', bus]]) })
    const next = between(one, {}, there, ready, 'running', adding)
    expect(commands(next)).toEqual(['device_del disk-data'])
    expect(next.actions).toMatchObject([{ pending: { adding: [], leaving: ['disk-data'] } }, {}])
    const never = between(one, {}, facts(), ready, 'running', adding)
    expect(never.actions).toMatchObject([{ do: 'noteSpec', spec: spec(), pending: none }])
  })

  test.each<[string, Tried, string[], string]>([
    ['waits', { tries: 3, retryInMs: 4_000, done: false, error: 'locked' }, [], 'Failed'],
    ['is tried again', { tries: 3, retryInMs: 0, done: false, error: 'locked' }, ['live'], 'Failed'],
    ['is not asked twice', { tries: 1, retryInMs: 1_000, done: true }, [], 'Applying'],
  ])('after a try it %s', (_name, tried, actions, reason) => {
    const seen = { ...ready, live: { 'new disk data/plug': tried } }
    const next = between(one, one, facts(), seen, 'running', adding)
    expect(verbs(next)).toEqual(actions)
    expect(condition(next, 'Synchronized')?.reason).toBe(reason)
    if (actions.length === 0) expect(next.recheckMs).toBe(tried.retryInMs)
    const told = next.happenings.filter((happening) => happening.reason === 'ChangeFailed')
    expect(told).toHaveLength(tried.error === undefined ? 0 : 1)
    const fact = alive('running', { record: { ...record(spec(one)), pending: adding }, facts: facts() })
    const later = planOf(recorded(runningMachine(one, power), next), fact, seen)
    expect(later.happenings).toEqual([])
  })
})

describe('a disk that is to go', () => {
  const one = { disks: [data] }
  const nodes = new Set(['disk-data', 'file-data'])

  test('is let go by the guest, then closed, then noted', () => {
    const there = between(one, {}, facts({ devices: new Map([['disk-data', bus]]), nodes }))
    expect(commands(there)).toEqual(['device_del disk-data'])
    expect(condition(there, 'Synchronized')?.message).toContain('the guest is asked to let it go')
    const gone = between(one, {}, facts({ nodes }))
    expect(commands(gone)).toEqual(['blockdev-del disk-data', 'blockdev-del file-data'])
    expect(noted(between(one, {}, facts()))).toEqual([spec()])
  })

  const leaving = { adding: [], leaving: ['disk-data'] }

  test('and that is wanted again is watched until it has gone, then plugged anew', () => {
    const there = facts({ devices: new Map([['disk-data', bus]]), nodes })
    const watched = between(one, one, there, ready, 'running', leaving)
    expect(watched.actions).toEqual([])
    expect(condition(watched, 'Synchronized')?.status).toBe('True')
    const next = between(one, one, facts({ nodes }), ready, 'running', leaving)
    expect(next.actions).toMatchObject([{ pending: { adding: ['disk-data'], leaving: [] } }, {}])
    expect(commands(next)).toEqual([
      ...['blockdev-del disk-data', 'blockdev-del file-data'],
      ...['blockdev-add file-data', 'blockdev-add disk-data', 'device_add disk-data'],
    ])
  })
})

test('a disk grows on the node that QEMU names', () => {
  const larger = { disks: [{ ...data, size: '2Gi' }] }
  const sized = (bytes: number) =>
    facts({
      devices: new Map([['disk-data', bus]]),
      disks: new Map([['data', { node: 'disk-data', bytes }]]),
    })
  const next = between({ disks: [data] }, larger, sized(1 << 30))
  expect(commands(next)).toEqual([`block_resize disk-data ${2 ** 31}`])
  expect(next.actions).toMatchObject([{ grows: 'data' }])
  expect(noted(between({ disks: [data] }, larger, sized(2 ** 31)))).toEqual([spec(larger)])
})

test('the action of a watchdog can’t be asked: obeying is enough, once', () => {
  const [reset, off] = ['reset', 'poweroff'].map((action) => ({ devices: { watchdog: { action } } }))
  const next = between(reset ?? {}, off ?? {}, undefined)
  expect(commands(next)).toEqual(['set-action pause'])
  const live = { 'watchdog action poweroff/set': { tries: 1, retryInMs: 1_000, done: true } }
  const later = between(reset ?? {}, off ?? {}, undefined, { live })
  expect(noted(later)).toEqual([spec(off)])
  expect(commands(later)).toEqual([])
})

describe('forwards', () => {
  const nat = (...guestPorts: number[]) => ({
    networks: [
      { name: 'nat', user: { forwards: guestPorts.map((guestPort) => ({ hostPort: 8080, guestPort })) } },
    ],
  })
  const nic = { devices: new Map([['nic-nat', bus]]), netdevs: new Set(['net-nat']) }
  const known = (...rules: string[]) => facts({ ...nic, forwards: new Map([['net-nat', rules]]) })

  test('are added and removed', () => {
    expect(commands(between(nat(), nat(80), known()))).toEqual([
      'human-monitor-command hostfwd_add net-nat tcp:127.0.0.1:8080-:80',
    ])
    expect(commands(between(nat(80), nat(), known('tcp:127.0.0.1:8080-:80')))).toEqual([
      'human-monitor-command hostfwd_remove net-nat tcp:127.0.0.1:8080',
    ])
    expect(noted(between(nat(), nat(80), known('tcp:127.0.0.1:8080-:80')))).toEqual([spec(nat(80))])
  })

  test('that move a port to another of the guest free it first', () => {
    expect(commands(between(nat(80), nat(81), known('tcp:127.0.0.1:8080-:80')))).toEqual([
      'human-monitor-command hostfwd_remove net-nat tcp:127.0.0.1:8080',
    ])
    expect(commands(between(nat(80), nat(81), known()))).toEqual([
      'human-monitor-command hostfwd_add net-nat tcp:127.0.0.1:8080-:81',
    ])
  })
})

test('networks come with a card and go after it', () => {
  const more = { networks: [{ name: 'more' }] }
  expect(commands(between({}, more, facts()))).toEqual(['netdev_add net-more', 'device_add nic-more'])
  const there = { devices: new Map([['nic-more', bus]]), netdevs: new Set(['net-more']) }
  expect(commands(between(more, {}, facts(there)))).toEqual(['device_del nic-more'])
  expect(commands(between(more, {}, facts({ netdevs: there.netdevs })))).toEqual(['netdev_del net-more'])
  expect(noted(between(more, {}, facts()))).toEqual([spec()])
})

test('several changes take a port each', () => {
  const wanted = { disks: [data], networks: [{ name: 'more' }] }
  const next = between({}, wanted, facts(), ready)
  const buses = next.actions.flatMap((action) =>
    action.do === 'live' ? action.calls.flatMap(({ args }) => ('bus' in args ? [args.bus] : [])) : [],
  )
  expect(buses).toEqual(['hotplug0', 'hotplug1'])
})

describe('nothing is changed', () => {
  const one = { disks: [data] }

  test('without facts', () => {
    const next = between({}, one, undefined, ready)
    expect(verbs(next)).toEqual([])
    expect(condition(next, 'Synchronized')).toMatchObject({ status: 'False', reason: 'Applying' })
  })

  test.each<RunState>(['prelaunch', 'inmigrate', 'finish-migrate', 'shutdown', 'guest-panicked'])(
    'in the state %s',
    (state) => {
      const next = between({}, one, facts(), ready, state)
      expect(commands(next)).toEqual([])
      expect(noted(next)).toEqual([])
      expect(condition(next, 'Synchronized')?.status).toBe('False')
    },
  )

  test('while the machine is stopped', () => {
    const stop = { why: 'Stop', at: '2026-01-01T00:00:00Z', graceSeconds: 30 }
    const vm = runningMachine({ ...one, runStrategy: 'Halted' }, { stop })
    const next = planOf(vm, alive('running', { record: record(spec()), facts: facts() }), ready)
    expect(verbs(next)).toEqual(['powerdown'])
  })

  test('of a QEMU whose record is another launch’s: the hash alone tells', () => {
    const other = { ...record(spec()), launchId: 'l-0' }
    const vm = runningMachine(one, power)
    const next = planOf(vm, alive('running', { record: other, facts: facts() }), {
      ...ready,
      specHash: 'other',
    })
    expect(verbs(next)).toEqual([])
    expect(condition(next, 'RestartRequired')).toMatchObject({ status: 'True', reason: 'SpecChanged' })
    expect(condition(next, 'Synchronized')?.status).toBe('Unknown')
  })
})

test('what needs a restart is named and goes away by itself', () => {
  const named = between({}, { memory: '1Gi', cpu: { cores: 2 } }, undefined)
  expect(condition(named, 'RestartRequired')).toMatchObject({
    status: 'True',
    message: 'spec.cpu.cores, spec.memory take effect at the next start',
  })
  expect(verbs(named)).toEqual([])
  const back = between({}, {}, undefined)
  expect(condition(back, 'RestartRequired')).toMatchObject({ status: 'False', reason: 'UpToDate' })
})

test('a policy is noted, quietly', () => {
  const next = between({}, { terminationGracePeriodSeconds: 5 }, undefined)
  expect(next.actions).toMatchObject([{ do: 'noteSpec', spec: { terminationGracePeriodSeconds: 5 } }])
  expect(next.happenings).toEqual([])
  const { changes } = specDiff(spec(), spec({ terminationGracePeriodSeconds: 5 }))
  expect(applied(spec(), spec({ terminationGracePeriodSeconds: 5 }), changes[0]!)).toEqual(
    spec({ terminationGracePeriodSeconds: 5 }),
  )
})
