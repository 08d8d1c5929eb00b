import { describe, expect, test } from 'vitest'
import type { ProcessFact } from '../../../src/controllers/vm/types.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import { VirtualMachine, type VmStatus, vmFinalizer } from '../../../src/resources/vm.ts'
import {
  absent,
  alive,
  asked,
  condition,
  here,
  identity,
  lost,
  machine,
  noAnswer,
  planOf,
  process,
  record,
  recorded,
  runningMachine,
  spec,
  time,
  under,
  verbs,
} from './fixture.ts'

const up: Partial<VmStatus> = { power: { strategy: 'Always', desired: 'Up' } }
const stop = { why: 'Stop', at: time(), graceSeconds: 30 }

describe('a request that comes too late', () => {
  const pausedBefore = { pausedByUser: true } as const
  const going: readonly (readonly [string, VirtualMachine])[] = [
    [
      'a stop',
      runningMachine({ runStrategy: 'Manual' }, { stop, power: { strategy: 'Manual', desired: 'Down' } }),
    ],
    ['a restart', runningMachine({}, { stop: { ...stop, why: 'Restart' } })],
    ['a stop that is to begin', runningMachine({ runStrategy: 'Halted' })],
    [
      'a deletion',
      { ...runningMachine(), metadata: { ...runningMachine().metadata, deletionTimestamp: time() } },
    ],
  ]
  const cases = going.flatMap(([name, vm]) =>
    (['Pause', 'Unpause', 'Reset'] as const).map((action) => ({ name, vm, action })),
  )

  test.each(cases)('$action meets $name: it is cleared, told and not done', ({ vm, action }) => {
    for (const state of ['running', 'watchdog', 'paused'] as const)
      for (const tenure of [{ state: 'single' }, lost] as const) {
        const status = { ...vm.status, ...asked(action), ...here } as VmStatus
        const next = planOf({ ...vm, status }, alive(state), under(tenure))
        expect(next.status.request).toBeUndefined()
        expect(next.status.pausedByUser).toBeUndefined()
        expect(verbs(next).filter((verb) => ['pause', 'resume', 'reset'].includes(verb))).toEqual([])
        expect(next.happenings).toContainEqual({
          ...{ type: 'Warning', reason: 'RequestDropped' },
          message: expect.stringMatching(
            new RegExp(`^${action} was asked for, but it is being (stopped|deleted)$`),
          ),
        })
      }
  })

  test('what was paused before stays so until it is gone', () => {
    const [, vm] = going[0] ?? []
    if (!vm) throw new Error('no machine')
    const paused = { ...vm, status: { ...vm.status, ...pausedBefore, ...asked('Unpause') } as VmStatus }
    expect(planOf(paused, alive('paused')).status.pausedByUser).toBe(true)
    expect(planOf(paused, absent).status.pausedByUser).toBeUndefined()
  })
})

describe('a restart that would be the end', () => {
  const asksRestart = runningMachine({ disks: [{ name: 'data', size: '1Mi' }] }, asked('Restart'))
  const dropped = (next: ReturnType<typeof planOf>) => {
    expect(next.status.stop).toBeUndefined()
    expect(next.status.request).toBeUndefined()
    expect(next.status.phase).toBe('Running')
    return next.happenings.find(({ reason }) => reason === 'RequestDropped')?.message
  }

  test('is not begun while a disk has failed', () => {
    const disks = [{ name: 'data', state: 'failed', message: 'would shrink' }] as const
    expect(dropped(planOf(asksRestart, alive(), { disks }))).toBe(
      'Restart was asked for, but it would not start again: data: would shrink',
    )
  })

  test('is not begun while the spec asks for what is never done', () => {
    const more = { record: record(spec({ disks: [{ name: 'data', size: '4Mi' }] })) }
    expect(dropped(planOf(asksRestart, alive('running', more)))).toContain('spec.disks[data].size')
  })

  test('is begun where disks are only not ready yet', () => {
    const disks = [{ name: 'data', state: 'absent' }] as const
    expect(planOf(asksRestart, alive(), { disks }).status.stop?.why).toBe('Restart')
  })
})

describe('a stop', () => {
  const stopping = runningMachine({ runStrategy: 'Halted' }, { stop })

  test.each([
    [0, 'powerdown'],
    [500, 'powerdown'],
    [1_500, undefined],
    [5_200, 'powerdown'],
    [29_999, undefined],
    [30_000, 'quit'],
    [34_999, 'quit'],
    [35_000, 'kill'],
    [3_600_000, 'kill'],
  ])('after %i ms a guest that goes on running gets: %s', (stopElapsedMs, action) => {
    const next = planOf(stopping, alive(), { stopElapsedMs })
    expect(verbs(next)).toEqual(action ? [action] : [])
    expect(next.status).toMatchObject({ phase: 'Stopping', reason: 'Stop' })
    expect(next.recheckMs).toBe(1_000)
  })

  test.each([
    [29_999, undefined],
    [34_999, undefined],
    [35_000, 'kill'],
  ])('after %i ms a QEMU that is silent gets: %s', (stopElapsedMs, action) => {
    for (const stopped of [false, true]) {
      const next = planOf(stopping, alive(noAnswer, { stopped }), { stopElapsedMs })
      expect(verbs(next)).toEqual(action ? [action] : [])
    }
  })

  test('a kill names the process that was seen', () => {
    const [action] = planOf(stopping, alive(), { stopElapsedMs: 35_000 }).actions
    expect(action).toEqual({ do: 'kill', identity, why: expect.anything() })
  })

  test.each<RunState>(['paused', 'prelaunch', 'io-error', 'watchdog', 'suspended'])(
    'a guest in the state %s is not asked: it could not answer',
    (state) => expect(verbs(planOf(stopping, alive(state)))).toEqual(['quit']),
  )

  test('a guest that powers down was stopped, it did not shut itself down', () => {
    const next = planOf(stopping, alive('shutdown'))
    expect(verbs(next)).toEqual(['quit'])
    expect(next.status.lastExit?.reason).toBe('Stopped')
  })

  test('is told of once', () => {
    const first = planOf(runningMachine({ runStrategy: 'Halted' }), alive())
    expect(first.happenings.map(({ reason }) => reason)).toEqual(['Stopping'])
    expect(planOf(recorded(stopping, first), alive(), { stopElapsedMs: 1_000 }).happenings).toEqual([])
  })

  test('is called off when the machine is wanted again, a restart is not', () => {
    const vm = runningMachine({}, { ...up, stop })
    expect(planOf(vm, alive()).status.stop).toBeUndefined()
    const restart = runningMachine({}, { ...up, stop: { ...stop, why: 'Restart' } })
    expect(planOf(restart, alive()).status.stop).toMatchObject({ why: 'Restart' })
  })

  test('of a guest whose end is recorded is not begun', () => {
    const lastExit = { reason: 'GuestShutdown' as const, launchId: 'l-1', at: time() }
    const vm = runningMachine(
      { runStrategy: 'Once' },
      { lastExit, power: { strategy: 'Once', desired: 'Down' } },
    )
    for (const machineAnswer of [alive('shutdown'), alive(noAnswer)]) {
      const next = planOf(vm, machineAnswer)
      expect(next.status.stop).toBeUndefined()
      expect(next.happenings.filter(({ reason }) => reason === 'Stopping')).toEqual([])
    }
    expect(planOf(vm, alive('running')).status.stop, 'it runs after all').toBeDefined()
  })
})

describe('a QEMU whose guest has ended', () => {
  const lastExit = { reason: 'GuestPanicked' as const, launchId: 'l-1', at: time() }
  const vm = runningMachine({}, { ...up, lastExit })

  test.each([
    [0, 'quit'],
    [4_999, 'quit'],
    [5_000, 'kill'],
  ])('is told to quit, after %i ms: %s', (endedElapsedMs, action) => {
    expect(verbs(planOf(vm, alive('guest-panicked'), { endedElapsedMs }))).toEqual([action])
  })

  test('and that hangs is killed', () => {
    expect(verbs(planOf(vm, alive(noAnswer), { endedElapsedMs: 4_999 }))).toEqual([])
    expect(verbs(planOf(vm, alive(noAnswer), { endedElapsedMs: 5_000 }))).toEqual(['kill'])
  })
})

describe('deletion', () => {
  const deleted = (status: Partial<VmStatus>) =>
    machine({}, { ...up, ...status }, { deletionTimestamp: time(), deletionGracePeriodSeconds: 0 })

  test('asks the guest to power down and shows since when', () => {
    const next = planOf(deleted({ process }), alive())
    expect(verbs(next)).toEqual(['powerdown'])
    expect(next.status).toMatchObject({ phase: 'Terminating', reason: 'Deleted' })
    expect(next.status.message).toContain(`since ${time()}, at most 30 s`)
  })

  test.each<[string, ProcessFact, string]>([
    ['a QEMU that is silent', alive(noAnswer), 'NoAnswer'],
    ['a QEMU that is stopped by a signal', alive(noAnswer, { stopped: true }), 'ProcessStopped'],
    ['a guest that has ended', alive('shutdown'), 'Stopped'],
    ['a process that can’t be told', { state: 'unknown', why: '/proc' }, 'ProcessUnknown'],
    ['two QEMUs', { state: 'duplicate', pids: [4, 5] }, 'DuplicateProcess'],
  ])('waits for %s and says so', (_name, fact, reason) => {
    const next = planOf(deleted({ process, stop }), fact)
    expect(verbs(next).filter((verb) => verb === 'dispose' || verb === 'dropFinalizer')).toEqual([])
    expect(next.status.reason).toBe(reason)
    expect(next.status.message).toBeTruthy()
    expect(next.recheckMs).toBeGreaterThan(0)
  })

  test('says why what it left can’t be removed, once, and goes on trying', () => {
    const disposeError = '/pool/x can’t be removed: it is busy'
    const first = planOf(deleted({}), absent, { disposeError })
    expect(first.status).toMatchObject({ phase: 'Terminating', reason: 'RemovalFailed' })
    expect(first.status.message).toContain(disposeError)
    expect(verbs(first)).toEqual(['dispose'])
    expect(first.happenings).toMatchObject([{ type: 'Warning', reason: 'RemovalFailed' }])
    expect(planOf(recorded(deleted({}), first), absent, { disposeError }).happenings).toEqual([])
  })

  test('removes what is left, then lets the object go', () => {
    const first = planOf(deleted({ process, stop }), absent)
    expect(verbs(first)).toEqual(['dispose'])
    expect(first.status).toMatchObject({ phase: 'Terminating', reason: 'RemovingDisks' })
    const second = planOf(recorded(deleted({}), first), absent, { disposed: true })
    expect(verbs(second)).toEqual(['dropFinalizer'])
  })

  test('leaves the finalizers of others', () => {
    const vm = deleted({})
    const foreign = { ...vm, metadata: { ...vm.metadata, finalizers: ['example.com/backup'] } }
    const next = planOf(foreign, absent, { disposed: true })
    expect(verbs(next)).toEqual([])
    expect(next.status.message).toContain('waits for others: finalizer example.com/backup')
  })

  test('is never started', () => {
    for (const next of [planOf(deleted({}), absent), planOf(deleted({}), absent, { disposed: true })])
      expect(verbs(next)).not.toContain('launch')
  })
})

describe('what can’t be told', () => {
  test.each<[string, ProcessFact]>([
    ['unknown', { state: 'unknown', why: '/proc is unreadable' }],
    ['duplicate', { state: 'duplicate', pids: [4, 5] }],
  ])('nothing is done to a machine that is %s', (_name, fact) => {
    for (const runStrategy of ['Always', 'Halted']) {
      for (const status of [{ process }, { process, stop }, {}]) {
        const next = planOf(machine({ runStrategy }, status), fact, { stopElapsedMs: 3_600_000 })
        expect(verbs(next)).toEqual([])
        expect(next.status.phase).toBe('Unknown')
        expect(next.status.process).toEqual('process' in status ? process : undefined)
        for (const type of ['Ready', 'Paused']) expect(condition(next, type)?.status).toBe('Unknown')
      }
    }
  })

  test('a duplicate is told of once, with the pids', () => {
    const fact: ProcessFact = { state: 'duplicate', pids: [4, 5] }
    const vm = runningMachine()
    const first = planOf(vm, fact)
    expect(first.happenings).toMatchObject([{ type: 'Warning', reason: 'DuplicateProcess' }])
    expect(first.happenings[0]?.message).toContain('4, 5')
    expect(planOf(recorded(vm, first), fact).happenings).toEqual([])
  })

  test('a QEMU that is silent is left alone, and told of once', () => {
    const vm = runningMachine({}, up)
    const first = planOf(vm, alive(noAnswer))
    expect(verbs(first)).toEqual([])
    expect(first.status).toMatchObject({ phase: 'Unresponsive', reason: 'NoAnswer' })
    expect(first.happenings).toMatchObject([{ type: 'Warning', reason: 'Unresponsive' }])
    for (const silentForMs of [6_000, 86_400_000]) {
      const later = planOf(recorded(vm, first), alive(noAnswer, { silentForMs }))
      expect(verbs(later)).toEqual([])
      expect(later.status.phase).toBe('Unresponsive')
      expect(later.happenings).toEqual([])
    }
    const back = planOf(recorded(vm, first), alive())
    expect(back.status.phase).toBe('Running')
    expect(back.happenings.map(({ reason }) => reason)).toContain('Responsive')
  })

  test.each([
    [0, 'Starting'],
    [29_999, 'Starting'],
    [30_000, 'Unresponsive'],
  ])('a QEMU just started that is silent for %i ms is %s', (silentForMs, phase) => {
    const vm = machine({}, { ...up, launch: { id: 'l-1', at: time(), bootId: 'boot-1' }, phase: 'Starting' })
    expect(planOf(vm, alive(noAnswer, { silentForMs })).status.phase).toBe(phase)
  })

  const closed = { state: 'unreachable', why: 'closed', message: 'the connection was closed' } as const

  test.each([
    [0, 10],
    [10, 10],
    [20, 20],
    [40, 40],
    [400, 400],
    [5_000, 1_000],
  ])('a QEMU whose socket closed %i ms ago is looked at again after %i ms', (silentForMs, ms) => {
    expect(planOf(runningMachine({}, up), alive(closed, { silentForMs })).recheckMs).toBe(ms)
    expect(planOf(runningMachine({}, up), alive(noAnswer, { silentForMs })).recheckMs).toBe(1_000)
  })

  test('a socket that only just closed changes nothing in the status', () => {
    const vm = recorded(runningMachine(), planOf(runningMachine({}, up), alive()))
    const next = planOf(vm, alive(closed, { silentForMs: 200 }))
    expect(next).toMatchObject({ status: vm.status, actions: [], happenings: [] })
    expect(planOf(vm, alive(closed, { silentForMs: 250 })).status.phase).toBe('Unresponsive')
  })

  test('a process stopped by a signal is Unresponsive and says how to continue it', () => {
    const next = planOf(runningMachine({}, up), alive(noAnswer, { stopped: true }))
    expect(next.status).toMatchObject({ phase: 'Unresponsive', reason: 'ProcessStopped' })
    expect(next.status.message).toContain('kill -CONT 42')
  })
})

describe('what exists before a machine does', () => {
  test('nothing is done before the object can’t vanish', () => {
    const vm = machine({}, {}, { finalizers: [] })
    expect(verbs(planOf(vm, absent))).toEqual(['addFinalizer'])
    expect(VirtualMachine.kind).toBe(vm.kind)
    expect(verbs(planOf({ ...vm, metadata: { ...vm.metadata, finalizers: [vmFinalizer] } }, absent))).toEqual(
      ['launch'],
    )
  })

  const disk = (state: 'absent' | 'preparing' | 'ready' | 'failed', more = {}) => ({
    disks: [{ name: 'root', state, ...more }],
  })

  test.each([
    ['absent', ['prepareDisks'], 'Provisioning', 'PreparingDisks'],
    ['preparing', [], 'Provisioning', 'PreparingDisks'],
    ['ready', ['launch'], 'Starting', 'Launching'],
  ] as const)('disks that are %s', (state, actions, phase, reason) => {
    const next = planOf(machine({ disks: [{ name: 'root', size: '1Gi' }] }), absent, disk(state))
    expect(verbs(next)).toEqual(actions)
    expect(next.status).toMatchObject({ phase, reason })
  })

  test('a disk that failed is tried again with back-off and told of once', () => {
    const vm = machine({ disks: [{ name: 'root', size: '1Gi' }] })
    const seen = { ...disk('failed', { message: 'no space' }), diskRetryInMs: 5_000 }
    const first = planOf(vm, absent, seen)
    expect(verbs(first)).toEqual([])
    expect(first.recheckMs).toBe(5_000)
    expect(first.status).toMatchObject({ phase: 'Pending', reason: 'DiskFailed', message: 'root: no space' })
    expect(condition(first, 'DisksReady')).toMatchObject({ status: 'False', reason: 'DiskFailed' })
    expect(first.happenings).toHaveLength(1)
    const second = planOf(recorded(vm, first), absent, { ...seen, diskRetryInMs: 0 })
    expect(verbs(second)).toEqual(['prepareDisks'])
    expect(second.happenings).toEqual([])
  })

  test('a machine that another’s disk or no host’s label keeps waiting says so', () => {
    const claim = { by: 'default/db', field: 'spec.disks[0].path', path: '/d' }
    const claimed = planOf(machine(), absent, { diskClaim: claim })
    expect(verbs(claimed)).toEqual([])
    expect(claimed.status).toMatchObject({ phase: 'Pending', reason: 'DiskInUse' })
    const selected = planOf(machine({ hostSelector: { disk: 'ssd' } }), absent)
    expect(verbs(selected)).toEqual([])
    expect(selected.status).toMatchObject({ phase: 'Pending', reason: 'Unschedulable' })
  })
})
