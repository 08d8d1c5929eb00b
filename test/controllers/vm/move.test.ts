import { describe, expect, test } from 'vitest'
import type { RunStrategy, VmStatus } from '../../../src/resources/vm.ts'
import {
  absent,
  alive,
  asked,
  condition,
  held,
  here,
  lost,
  machine,
  noAnswer,
  now,
  planOf,
  process,
  recorded,
  runningMachine,
  time,
  under,
  unknown,
  verbs,
} from './fixture.ts'

describe('a machine that is asked to move', () => {
  const strategies: readonly RunStrategy[] = ['Always', 'RerunOnFailure', 'Once', 'Manual']
  const up = (strategy: RunStrategy): Partial<VmStatus> => ({ power: { strategy, desired: 'Up' } })
  const localDisks = [{ name: 'root', field: 'spec.disks[0].pool' }]

  test.each(strategies)('is shut down, given up once it is gone, and meant to run: %s', (runStrategy) => {
    const status = { ...here, ...up(runStrategy), ...asked('Move'), onHostLoss: 'Manual' as const }
    const vm = runningMachine({ runStrategy }, status)
    const first = planOf(vm, alive(), under(held()))
    expect(verbs(first)).toEqual(['powerdown'])
    expect(first.status).toMatchObject({ stop: { why: 'Move', graceSeconds: 30 }, hostName: 'host-a' })
    expect(first.status.request).toBeUndefined()
    // It is not forgotten while it goes on.
    const still = planOf(recorded(vm, first), alive(), under(held()))
    expect(still.status.stop?.why).toBe('Move')
    const gone = planOf(recorded(vm, still), absent, under(held()))
    expect(verbs(gone)).toEqual(['relinquish'])
    for (const member of ['hostName', 'placementEpoch', 'process', 'launch', 'onHostLoss', 'stop'])
      expect(gone.status, member).not.toHaveProperty(member)
    expect(gone.status).toMatchObject({
      ...{ phase: 'Pending', reason: 'Moving', lastExit: { reason: 'Stopped' } },
      power: { desired: 'Up' },
    })
    expect(gone.status.backoff).toBeUndefined()
  })

  test('is given up only when its process is proven gone', () => {
    const stop = { why: 'Move', at: time(), graceSeconds: 30 }
    const vm = runningMachine({}, { ...here, stop })
    for (const fact of [unknown, alive(noAnswer), { state: 'duplicate', pids: [1, 2] } as const]) {
      const next = planOf(vm, fact, under(held()))
      expect(next.status.hostName).toBe('host-a')
      expect(verbs(next)).toEqual([])
    }
  })

  test.each<[string, Partial<VmStatus>]>([
    ['was shut down for that', { stop: { why: 'Move', at: time(), graceSeconds: 30 } }],
    ['was gone before', asked('Move')],
    ['was on another boot of its host', { ...asked('Move'), process: { ...process, bootId: 'before' } }],
  ])('and %s is given up only while the lease is held, and under its epoch', (_what, status) => {
    const vm = runningMachine({}, { ...here, ...status })
    const waits = planOf(vm, absent, under(lost))
    expect(verbs(waits)).toEqual([])
    expect(waits.status).toMatchObject({ hostName: 'host-a', placementEpoch: 7, reason: 'LeaseLost' })
    const still = planOf(recorded(vm, waits), absent, under(held(6)))
    expect(verbs(still)).toEqual([])
    expect(still.status.hostName).toBe('host-a')
    const goes = planOf(recorded(vm, still), absent, under(held(8)))
    expect(verbs(goes)).toEqual(['relinquish'])
    expect(goes.status.hostName).toBeUndefined()
    expect(goes.status.power?.desired).toBe('Up')
  })

  test('and does not power down is ended after its grace period', () => {
    const vm = runningMachine({}, { ...here, stop: { why: 'Move', at: time(), graceSeconds: 30 } })
    const overdue = (ms: number) => verbs(planOf(vm, alive(), under(held(), { stopElapsedMs: ms })))
    expect(overdue(30_000)).toEqual(['quit'])
    expect(overdue(35_000)).toEqual(['kill'])
  })

  test('and is down stays down', () => {
    const status = { ...here, power: { strategy: 'Manual' as const, desired: 'Down' as const } }
    const next = planOf(
      machine({ runStrategy: 'Manual' }, { ...status, ...asked('Move') }),
      absent,
      under(held()),
    )
    expect(verbs(next)).toEqual(['relinquish'])
    expect(next.status.power?.desired).toBe('Down')
    expect(next.status.hostName).toBeUndefined()
  })

  test('while it is stopped for good goes, and stays stopped', () => {
    const power = { strategy: 'Manual' as const, desired: 'Down' as const }
    const stop = { why: 'Stop', at: time(), graceSeconds: 30 }
    const vm = runningMachine({ runStrategy: 'Manual' }, { ...here, power, stop, ...asked('Move') })
    const gone = planOf(recorded(vm, planOf(vm, alive(), under(held()))), absent, under(held()))
    expect(verbs(gone)).toEqual(['relinquish'])
    expect(gone.status.power?.desired).toBe('Down')
  })

  test('is deleted here where that was asked meanwhile', () => {
    const stop = { why: 'Move', at: time(), graceSeconds: 30 }
    const vm = machine({}, { ...here, process, stop }, { deletionTimestamp: time() })
    expect(verbs(planOf(vm, absent, under(held())))).toEqual(['dispose'])
  })

  test.each([
    ['alive', alive()],
    ['absent', absent],
  ])('stays where only this host has its disks: %s', (_what, fact) => {
    const vm = runningMachine({}, { ...here, ...asked('Move') })
    const next = planOf(vm, fact, under(held(), { localDisks }))
    expect(next.status).toMatchObject({ hostName: 'host-a' })
    expect(next.status.request).toBeUndefined()
    expect(next.status.stop).toBeUndefined()
    expect(next.happenings.map(({ reason }) => reason)).toContain('MoveRefused')
    expect(condition(next, 'Movable')).toMatchObject({
      ...{ status: 'False', reason: 'LocalDisks' },
      message: expect.stringContaining('spec.disks[0].pool'),
    })
  })

  test('is started again where it got a disk meanwhile that only this host has', () => {
    const stop = { why: 'Move', at: time(), graceSeconds: 30 }
    const next = planOf(runningMachine({}, { ...here, stop }), absent, under(held(), { localDisks }))
    expect(verbs(next)).toEqual(['launch'])
    expect(next.happenings.map(({ reason }) => reason)).toContain('MoveRefused')
  })

  test('stays where there is no other host, and says so from then on', () => {
    const vm = runningMachine({}, { hostName: 'host-a', ...asked('Move') })
    const next = planOf(vm, alive())
    expect(verbs(next)).toEqual([])
    expect(next.status.request).toBeUndefined()
    expect(condition(next, 'Movable')).toMatchObject({ status: 'False', reason: 'SingleHost' })
    const later = planOf(recorded(vm, next), alive(), {}, now + 60_000)
    expect(later.status).toEqual(next.status)
  })

  test('can be told before: the condition is there on every pass, both ways', () => {
    const vm = runningMachine({}, here)
    expect(condition(planOf(vm, alive(), under(held())), 'Movable')?.status).toBe('True')
    const tied = planOf(vm, alive(), under(held(), { localDisks }))
    expect(condition(tied, 'Movable')?.status).toBe('False')
    expect(tied.happenings).toEqual([])
  })
})
