import { describe, expect, test } from 'vitest'
import { leaseWait, requireTenure } from '../../../src/controllers/vm/tenure.ts'
import type { Tenure } from '../../../src/host/ports.ts'
import type { RunState } from '../../../src/qmp/types.ts'
import type { VmAction, VmStatus } from '../../../src/resources/vm.ts'
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
  planOf,
  process,
  record,
  recorded,
  runningMachine,
  spec,
  time,
  under,
  unknown,
  verbs,
} from './fixture.ts'

const single: Tenure = { state: 'single' }

describe('whether a guest may be started or go on', () => {
  test.each<[string, Tenure, number | undefined, boolean]>([
    ['the store is its own', single, undefined, true],
    ['the lease is held', held(), 7, true],
    ['the lease is held, and nothing was recorded yet', held(), undefined, true],
    ['the lease is held anew', held(8), 7, true],
    ['the lease runs out', held(7, 1_000), 7, false],
    ['the machine was placed under a newer lease', held(7), 8, false],
    ['the lease is lost', lost, 7, false],
  ])('by a plan where %s: %s %s', (_what, tenure, epoch, may) => {
    expect(leaseWait(tenure, epoch) === undefined).toBe(may)
  })

  test.each<[string, Tenure, number | undefined, boolean]>([
    ['the store is its own', single, undefined, true],
    ['the lease is held as recorded', held(), 7, true],
    ['the lease was taken in between and is held again', held(8), 7, false],
    ['what is known of the lease is old', held(6), 7, false],
    ['nothing was recorded', held(), undefined, false],
    ['the lease runs out', held(7, 250), 7, false],
    ['the lease is lost', lost, 7, false],
  ])('right before it where %s: %s %s', (_what, tenure, epoch, may) => {
    const check = () => requireTenure(tenure, epoch)
    if (may) expect(check).not.toThrow()
    else expect(check).toThrow(expect.objectContaining({ code: 'LeaseLost' }))
  })
})

describe('a machine without a host', () => {
  test('on a store of its own is taken by the host, as ever', () => {
    const next = planOf(machine(), absent)
    expect(next.status).toMatchObject({ hostName: 'host-a', phase: 'Starting' })
    expect(next.status.placementEpoch).toBeUndefined()
    expect(next.status.onHostLoss).toBeUndefined()
    expect(condition(next, 'Movable')).toBeUndefined()
  })

  test('is not taken by a host that refuses it', () => {
    const next = planOf(machine(), absent, { refusal: 'cordoned (spec.unschedulable)' })
    expect(next.status).toMatchObject({
      phase: 'Pending',
      reason: 'Unschedulable',
      message: 'cordoned (spec.unschedulable)',
    })
    expect(next.status.hostName).toBeUndefined()
    expect(verbs(next)).toEqual([])
    expect(next.recheckMs).toBeGreaterThan(0)
  })

  test('that runs here already, or is being deleted, is taken even so', () => {
    const refusal = 'cordoned'
    expect(planOf(machine(), alive(), { refusal }).status.hostName).toBe('host-a')
    const deleted = machine({}, {}, { deletionTimestamp: time() })
    expect(planOf(deleted, absent, { refusal }).status.hostName).toBe('host-a')
  })

  test.each<[string, Tenure]>([
    ['held', held()],
    ['lost', lost],
  ])("in a cluster is nobody's: %s", (_what, tenure) => {
    const vm = machine()
    for (const fact of [absent, unknown]) {
      const next = planOf(vm, fact, under(tenure))
      expect(next).toEqual({ status: vm.status, actions: [], happenings: [] })
    }
  })
})

describe('a machine of this host', () => {
  test.each([
    ['absent', absent],
    ['alive', alive()],
    ['unknown', unknown],
  ])('is recorded under the epoch that is held, whatever is done: %s', (_what, fact) => {
    const vm = machine({}, { ...here, placementEpoch: 5, process })
    expect(planOf(vm, fact, under(held())).status.placementEpoch).toBe(7)
    expect(planOf(vm, fact, under(lost)).status.placementEpoch).toBe(5)
    const newer = machine({}, { ...here, placementEpoch: 9, process })
    expect(planOf(newer, fact, under(held())).status.placementEpoch).toBe(9)
  })

  test.each<[string, Tenure]>([
    ['lost', lost],
    ['about to be lost', held(7, 900)],
  ])('is not started while the lease is %s, and its disks are not made', (_what, tenure) => {
    const vm = machine({}, here)
    for (const state of ['ready', 'absent'] as const) {
      const next = planOf(vm, absent, under(tenure, { disks: [{ name: 'root', state }] }))
      expect(verbs(next)).toEqual([])
      expect(next.status).toMatchObject({ phase: 'Pending', reason: 'LeaseLost' })
      expect(next.status.launch).toBeUndefined()
      expect(next.recheckMs).toBeGreaterThan(0)
    }
  })

  test('says the same however long the lease has been lost: else its status would be written for ever', () => {
    const vm = machine({}, here)
    const messages = [lost, { ...lost, why: 'not renewed for 9.9 s' }].map(
      (tenure) => planOf(vm, absent, under(tenure)).status.message,
    )
    expect(messages[0]).toBe(messages[1])
  })

  test.each<[RunState, string, Partial<VmStatus>]>([
    ['prelaunch', 'LeaseLost', {}],
    ['paused', 'LeaseLost', {}],
    ['io-error', 'IOError', { ioError: { retries: 1, retryAt: time(-1_000) } }],
  ])('in the state %s does not go on while the lease is lost', (state, reason, status) => {
    const vm = runningMachine({}, { ...here, ...status })
    const next = planOf(vm, alive(state), under(lost))
    expect(verbs(next)).toEqual([])
    expect(next.status.reason).toBe(reason)
    expect(next.status.ioError).toEqual(status.ioError)
    expect(verbs(planOf(vm, alive(state), under(held())))).toEqual(['resume'])
  })

  test.each<[VmAction, RunState]>([
    ['Unpause', 'io-error'],
    ['Unpause', 'watchdog'],
    ['Reset', 'running'],
  ])('keeps the request %s in the state %s until the lease is held', (action, state) => {
    const vm = runningMachine({}, { ...here, ...asked(action) })
    const waiting = planOf(vm, alive(state), under(lost))
    expect(verbs(waiting)).toEqual([])
    expect(waiting.status.request?.action).toBe(action)
    expect(verbs(planOf(vm, alive(state), under(held())))).toHaveLength(1)
  })

  test('that runs is left as it is while the lease is lost: stopping it is the guard’s work', () => {
    const next = planOf(runningMachine({}, here), alive(), under(lost))
    expect(verbs(next)).toEqual([])
    expect(next.status.phase).toBe('Running')
  })

  test('is not changed while the lease is lost, and says that it waits', () => {
    const before = spec({ devices: { watchdog: { action: 'reset' } } })
    const vm = runningMachine({ devices: { watchdog: { action: 'poweroff' } } }, here)
    const fact = alive('running', { record: record(before) })
    const next = planOf(vm, fact, under(lost))
    expect(verbs(next)).toEqual([])
    expect(condition(next, 'Synchronized')).toMatchObject({ status: 'False', reason: 'LeaseLost' })
    expect(verbs(planOf(vm, fact, under(held())))).toContain('live')
  })

  test('is stopped also while the lease is lost', () => {
    const next = planOf(runningMachine({ runStrategy: 'Halted' }, here), alive(), under(lost))
    expect(verbs(next)).toEqual(['powerdown'])
  })

  test('that is being deleted keeps its disks while the lease is lost', () => {
    const vm = machine({}, here, { deletionTimestamp: time() })
    expect(verbs(planOf(vm, absent, under(lost)))).toEqual([])
    expect(verbs(planOf(vm, absent, under(held())))).toEqual(['dispose'])
  })

  test('a launch that the lease did not outlast is nobody’s failure, and no restart', () => {
    const exit = { reason: 'HostLost' as const, at: time(-9_000), launchId: 'l-0' }
    const vm = machine(
      { recovery: { onHostLoss: 'Failover' } },
      { ...here, restarts: 3, lastExit: exit, onHostLoss: 'Failover' },
    )
    const begun = recorded(
      { ...vm, status: { ...vm.status!, launch: { id: 'l-1', at: time(), bootId: 'boot-1' } } },
      {
        ...planOf(vm, absent, under(held())),
      },
    )
    expect(begun.status).toMatchObject({ restarts: 4, onHostLoss: 'Failover', launch: { id: 'l-2' } })
    const launchError = { launchId: 'l-2', code: 'LeaseLost', message: 'lost' }
    const next = planOf(begun, absent, under(lost, { launchError }))
    expect(next.status).toMatchObject({ restarts: 3, lastExit: exit, reason: 'LeaseLost' })
    expect(next.status.backoff).toBeUndefined()
    expect(next.status.launch).toBeUndefined()
    expect(next.status.onHostLoss).toBeUndefined()
  })

  test('a start after its last host was lost counts as a restart, not as a failure', () => {
    const lastExit = { reason: 'HostLost' as const, at: time(-9_000), launchId: 'l-1' }
    const next = planOf(machine({}, { ...here, lastExit }), absent, under(held()))
    expect(verbs(next)).toEqual(['launch'])
    expect(next.status).toMatchObject({ restarts: 1, lastExit })
    expect(next.status.backoff).toBeUndefined()
  })

  test('keeps the condition that the leader owns', () => {
    const scheduled = {
      ...{ type: 'Scheduled', status: 'True' as const, reason: 'Placed', message: 'on host host-a' },
      lastTransitionTime: time(-60_000),
    }
    const next = planOf(machine({}, { ...here, conditions: [scheduled] }), absent, under(held()))
    expect(condition(next, 'Scheduled')).toEqual(scheduled)
    expect(next.status.conditions[0]?.type).toBe('Ready')
  })

  test('is where the leader put it, whatever labels this host knows of', () => {
    const vm = machine({ hostSelector: { disk: 'ssd' } }, here)
    expect(verbs(planOf(vm, absent, under(held())))).toEqual(['launch'])
    expect(planOf(vm, absent).status.reason).toBe('Unschedulable')
  })
})

describe('status.onHostLoss', () => {
  const wish = (onHostLoss: 'Manual' | 'Failover') => ({ recovery: { onHostLoss } })
  const [manual, failover] = [wish('Manual'), wish('Failover')]
  const runs = (of: object) => alive('running', { record: record(spec({ ...of })) })

  test('is what the launch record will say, at a launch', () => {
    expect(planOf(machine(failover, here), absent, under(held())).status.onHostLoss).toBe('Failover')
    expect(planOf(machine(manual, here), absent, under(held())).status.onHostLoss).toBe('Manual')
  })

  test('becomes Failover once launch.json says so, and not before', () => {
    const vm = runningMachine(failover, here)
    const first = planOf(vm, runs(manual), under(held()))
    expect(first.status.onHostLoss).toBe('Manual')
    expect(first.actions).toMatchObject([{ do: 'noteSpec', spec: failover }])
    // The agent dies here: launch.json may say either, and what it says is read.
    expect(planOf(recorded(vm, first), runs(manual), under(held())).status.onHostLoss).toBe('Manual')
    const then = planOf(recorded(vm, first), runs(failover), under(held()))
    expect(then.status.onHostLoss).toBe('Failover')
    expect(verbs(then)).toEqual([])
  })

  test('becomes Manual before launch.json does', () => {
    const vm = runningMachine(manual, { ...here, onHostLoss: 'Failover' })
    const first = planOf(vm, runs(failover), under(held()))
    // Recorded before the action: an agent that dies between has promised nothing that it does not keep.
    expect(first.status.onHostLoss).toBe('Manual')
    expect(first.actions).toMatchObject([{ do: 'noteSpec', spec: manual }])
    const then = planOf(recorded(vm, first), runs(manual), under(held()))
    expect(then.status.onHostLoss).toBe('Manual')
    expect(verbs(then)).toEqual([])
  })

  test.each([
    ['unknown', unknown],
    ['silent', alive(noAnswer, { record: record(spec(failover)) })],
  ])('is Manual at once where the spec says so, also of a process that is %s', (_what, fact) => {
    const before = { ...here, onHostLoss: 'Failover' as const }
    expect(planOf(runningMachine(manual, before), fact, under(held())).status.onHostLoss).toBe('Manual')
    expect(planOf(runningMachine(failover, before), fact, under(held())).status.onHostLoss).toBe('Failover')
  })

  test('of a QEMU whose launch record is not known is Manual', () => {
    const vm = runningMachine(failover, { ...here, onHostLoss: 'Failover' })
    expect(planOf(vm, alive(), under(held())).status.onHostLoss).toBe('Manual')
  })

  test('goes with the process', () => {
    const vm = runningMachine({ ...failover, runStrategy: 'Manual' }, { ...here, onHostLoss: 'Failover' })
    expect(planOf(vm, absent, under(held())).status.onHostLoss).toBeUndefined()
  })
})

describe('a run in another boot', () => {
  const [rebooted, launch] = [
    { ...process, bootId: 'before' },
    { id: 'l', at: time(), bootId: 'before' },
  ]

  test.each<[string, Partial<VmStatus>]>([
    ['with its process', { process: rebooted }],
    ['of which only the launch is recorded', { launch }],
    ['with its process, being deleted', { process: rebooted }],
    ['with its process, asked to stop', { process: rebooted, ...asked('Stop') }],
  ])('%s is forgotten only while the lease is held: this may be a copy of its host', (what, status) => {
    const meta = what.includes('deleted') ? { deletionTimestamp: time() } : {}
    const failover = { recovery: { onHostLoss: 'Failover' as const } }
    const vm = machine(failover, { ...here, onHostLoss: 'Failover', ...status }, meta)
    const waits = planOf(vm, absent, under(lost))
    expect(verbs(waits)).toEqual([])
    expect(waits.happenings).toEqual([])
    expect(waits.status).toMatchObject({ ...status, onHostLoss: 'Failover', reason: 'LeaseLost' })
    expect(condition(waits, 'Ready')?.status).toBe('Unknown')
    const goesOn = planOf(recorded(vm, waits), absent, under(held()))
    expect(goesOn.status.process).toBeUndefined()
    expect(goesOn.status.launch?.bootId).not.toBe('before')
  })

  test('is forgotten at once where the host is alone, or the boot is this one', () => {
    const alone = machine({}, { hostName: 'host-a', process: rebooted })
    expect(planOf(alone, absent).status.lastExit?.reason).toBe('HostReboot')
    const killed = planOf(runningMachine({}, here), absent, under(lost))
    expect(killed.status.lastExit).toBeDefined()
    expect(killed.status.process).toBeUndefined()
  })
})
