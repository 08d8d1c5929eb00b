import { describe, expect, test } from 'vitest'
import type { RunState } from '../../../src/qmp/types.ts'
import {
  type ExitReason,
  type RunStrategy,
  runStrategies,
  type VmAction,
  type VmStatus,
} from '../../../src/resources/vm.ts'
import { requestAction } from '../../../src/resources/vm-actions.ts'
import {
  absent,
  alive,
  condition,
  identity,
  machine,
  now,
  planOf,
  process,
  recorded,
  runningMachine,
  time,
  verbs,
} from './fixture.ts'

const power = (strategy: RunStrategy, desired: 'Up' | 'Down'): Partial<VmStatus> => ({
  power: { strategy, desired },
})

describe('run strategies, as the KubeVirt user guide has them', () => {
  test.each<[RunStrategy, boolean]>([
    ['Always', true],
    ['RerunOnFailure', true],
    ['Once', true],
    ['Manual', false],
    ['Halted', false],
  ])('a new machine under %s starts: %s', (runStrategy, starts) => {
    const next = planOf(machine({ runStrategy }), absent)
    expect(verbs(next)).toEqual(starts ? ['launch'] : [])
    expect(next.status.phase).toBe(starts ? 'Starting' : 'Stopped')
  })

  test.each<[RunStrategy, boolean]>([
    ['Always', false],
    ['RerunOnFailure', false],
    ['Once', false],
    ['Manual', false],
    ['Halted', true],
  ])('a running machine that is changed to %s is stopped: %s', (runStrategy, stops) => {
    const before = power(runStrategy === 'Always' ? 'Once' : 'Always', 'Up')
    const next = planOf(runningMachine({ runStrategy }, before), alive())
    expect(next.status.stop !== undefined).toBe(stops)
    expect(verbs(next)).toEqual(stops ? ['powerdown'] : [])
  })

  test.each<[RunStrategy, boolean]>([
    ['Always', true],
    ['RerunOnFailure', true],
    ['Once', true],
    ['Manual', false],
  ])('a halted machine that is changed to %s starts: %s', (runStrategy, starts) => {
    const next = planOf(machine({ runStrategy }, power('Halted', 'Down')), absent)
    expect(verbs(next)).toEqual(starts ? ['launch'] : [])
  })

  /** Whether it comes up again: clean exits, then failures. */
  const again: Record<RunStrategy, { clean: boolean; failed: boolean }> = {
    Always: { clean: true, failed: true },
    RerunOnFailure: { clean: false, failed: true },
    Once: { clean: false, failed: false },
    Manual: { clean: false, failed: false },
    Halted: { clean: false, failed: false },
  }

  /** What shows each exit: QEMU's state while it holds the ended guest, or how its process went. */
  const exits: readonly {
    reason: ExitReason
    state?: RunState
    exit?: { exitCode?: number; signal?: string }
    clean: boolean
  }[] = [
    { reason: 'GuestShutdown', state: 'shutdown', clean: true },
    { reason: 'GuestPanicked', state: 'guest-panicked', clean: false },
    { reason: 'InternalError', state: 'internal-error', clean: false },
    { reason: 'Killed', exit: { signal: 'SIGKILL' }, clean: false },
    { reason: 'Crashed', exit: { signal: 'SIGSEGV' }, clean: false },
    { reason: 'Crashed', exit: { exitCode: 1 }, clean: false },
    { reason: 'Crashed', clean: false },
  ]
  const table = runStrategies
    .filter((strategy) => strategy !== 'Halted')
    .flatMap((strategy) => exits.map((how) => ({ strategy, how, ...how })))

  test.each(table)('under $strategy, $reason ($state $exit)', ({ strategy, how }) => {
    let vm = runningMachine({ runStrategy: strategy }, power(strategy, 'Up'))
    if (how.state) {
      const ended = planOf(vm, alive(how.state))
      expect(verbs(ended)).toEqual(['quit'])
      expect(ended.status.lastExit).toMatchObject({ reason: how.reason, launchId: 'l-1' })
      expect(ended.happenings.filter(({ reason }) => reason === how.reason)).toHaveLength(1)
      // The same once more tells nothing new.
      expect(planOf(recorded(vm, ended), alive(how.state)).happenings).toEqual([])
      vm = recorded(vm, ended)
    }
    const exit = how.exit && { exit: { uid: '', launchId: '', identity, output: '', ...how.exit } }
    const next = planOf(vm, absent, exit)
    expect(next.status.lastExit).toMatchObject({ reason: how.reason, launchId: 'l-1' })
    expect(next.status.process).toBeUndefined()
    const up = again[strategy][how.clean ? 'clean' : 'failed']
    expect(verbs(next)).toEqual(up ? ['launch'] : [])
    if (!up) expect(next.status.phase).toBe(how.clean ? 'Stopped' : 'Failed')
  })

  test.each(runStrategies)('a launch that failed under %s', (runStrategy) => {
    const vm = machine({ runStrategy }, { launch: { id: 'l-1', at: time(), bootId: 'boot-1' } })
    const launchError = { launchId: 'l-1', code: 'PortTaken', message: 'port 80 is taken' }
    const next = planOf(
      { ...vm, status: { ...vm.status!, power: { strategy: runStrategy, desired: 'Up' } } },
      absent,
      { launchError },
    )
    expect(next.status.lastExit).toMatchObject({ reason: 'LaunchFailed', message: 'port 80 is taken' })
    expect(verbs(next)).toEqual(again[runStrategy].failed ? ['launch'] : [])
  })

  test.each(runStrategies)('a reboot of the host under %s is nobody’s failure', (runStrategy) => {
    const vm = runningMachine({ runStrategy }, power(runStrategy, 'Up'))
    const next = planOf(vm, absent, { bootId: 'boot-2' })
    expect(next.status.lastExit?.reason).toBe('HostReboot')
    expect(next.status.backoff).toBeUndefined()
    expect(verbs(next)).toEqual(again[runStrategy].failed ? ['launch'] : [])
  })
})

describe('requests', () => {
  const env = { id: 'r', at: time() }

  test.each<[VmAction, RunStrategy, boolean, unknown]>([
    ['Start', 'Halted', false, { spec: { runStrategy: 'Always' } }],
    ['Start', 'Always', false, { refuse: expect.anything() }],
    ['Start', 'RerunOnFailure', false, { request: expect.anything() }],
    ['Start', 'Manual', false, { request: expect.anything() }],
    ['Start', 'Once', false, { request: expect.anything() }],
    ['Stop', 'Always', true, { spec: { runStrategy: 'Halted' } }],
    ['Stop', 'RerunOnFailure', true, { request: expect.anything() }],
    ['Stop', 'Manual', true, { request: expect.anything() }],
    ['Stop', 'Halted', false, { refuse: expect.anything() }],
    ['Restart', 'Always', true, { request: expect.anything() }],
    ['Restart', 'RerunOnFailure', true, { request: expect.anything() }],
    ['Restart', 'Manual', true, { request: expect.anything() }],
    ['Restart', 'Halted', false, { refuse: expect.anything() }],
  ])('%s under %s while up is %s', (action, runStrategy, up, decision) => {
    const vm = up ? runningMachine({ runStrategy }) : machine({ runStrategy })
    expect(requestAction(vm, action, env)).toEqual(decision)
  })

  const asked = (action: VmAction, strategy: RunStrategy, desired: 'Up' | 'Down'): Partial<VmStatus> => ({
    ...power(strategy, desired),
    request: { action, ...env },
  })

  test.each<RunStrategy>(['Manual', 'RerunOnFailure', 'Once'])('start under %s launches', (strategy) => {
    const next = planOf(machine({ runStrategy: strategy }, asked('Start', strategy, 'Down')), absent)
    expect(verbs(next)).toEqual(['launch'])
    expect(next.status.request).toBeUndefined()
  })

  test.each<RunStrategy>(['Manual', 'RerunOnFailure', 'Once'])('stop under %s stays stopped', (strategy) => {
    const vm = runningMachine({ runStrategy: strategy }, asked('Stop', strategy, 'Up'))
    const next = planOf(vm, alive())
    expect(verbs(next)).toEqual(['powerdown'])
    const gone = planOf(recorded(vm, next), absent)
    expect(verbs(gone)).toEqual([])
    expect(gone.status).toMatchObject({
      phase: 'Stopped',
      reason: 'Stopped',
      lastExit: { reason: 'Stopped' },
    })
  })

  test.each<RunStrategy>(['Always', 'Manual', 'RerunOnFailure', 'Once'])(
    'restart under %s stops and comes up again, and is no failure',
    (strategy) => {
      const vm = runningMachine({ runStrategy: strategy }, asked('Restart', strategy, 'Up'))
      const next = planOf(vm, alive())
      expect(verbs(next)).toEqual(['powerdown'])
      const gone = planOf(recorded(vm, next), absent)
      expect(verbs(gone)).toEqual(['launch'])
      expect(gone.status.backoff).toBeUndefined()
    },
  )

  test('pause holds until it is unpaused', () => {
    const vm = runningMachine({}, asked('Pause', 'Always', 'Up'))
    const next = planOf(vm, alive())
    expect(verbs(next)).toEqual(['pause'])
    const held = planOf(recorded(vm, next), alive('paused'))
    expect(verbs(held)).toEqual([])
    expect(held.status).toMatchObject({ phase: 'Paused', reason: 'PausedByUser' })
    expect(condition(held, 'Paused')).toMatchObject({ status: 'True' })
    expect(condition(held, 'Ready')).toMatchObject({ status: 'False' })
    const freed = { ...held.status, request: { action: 'Unpause' as const, ...env } }
    expect(verbs(planOf({ ...vm, status: freed }, alive('paused')))).toEqual(['resume'])
  })

  test('a pause that nobody asked for is ended', () => {
    expect(verbs(planOf(runningMachine(), alive('paused')))).toEqual(['resume'])
  })

  test.each<RunState>(['io-error', 'watchdog'])('unpause in the state %s resumes at once', (state) => {
    const vm = runningMachine({}, { ...asked('Unpause', 'Always', 'Up'), phase: 'Paused' })
    expect(verbs(planOf(vm, alive(state)))).toEqual(['resume'])
  })

  test('reset resets', () => {
    expect(verbs(planOf(runningMachine({}, asked('Reset', 'Always', 'Up')), alive()))).toEqual(['reset'])
  })
})

describe('back-off', () => {
  const failed = (failures: number, retryInMs: number) => ({
    backoff: { failures, retryAt: time(retryInMs) },
    lastExit: { reason: 'Crashed' as const, at: time(-1_000), launchId: 'l-0', message: 'boom' },
  })

  test.each([
    [0, 0],
    [1, 5],
    [2, 10],
    [3, 20],
    [6, 160],
    [7, 300],
    [8, 300],
    [1_000_000, 300],
  ])('after %i failures and one more the next try is %i s away', (before, seconds) => {
    const backoff = before > 0 ? { backoff: { failures: before, retryAt: time(-1_000) } } : {}
    const next = planOf(runningMachine({}, { ...power('Always', 'Up'), ...backoff }), absent)
    expect(next.status.backoff).toEqual({ failures: before + 1, retryAt: time(seconds * 1_000) })
    expect(verbs(next)).toEqual(seconds === 0 ? ['launch'] : [])
    if (seconds === 0) return
    expect(next.status).toMatchObject({ phase: 'CrashLoopBackOff' })
    expect(next.status.message).toContain(`next try at ${time(seconds * 1_000)}`)
    expect(next.recheckMs).toBe(seconds * 1_000)
  })

  test('the time shown is never before the time meant', () => {
    const vm = runningMachine({}, { ...power('Always', 'Up'), ...failed(1, -60_000) })
    const next = planOf({ ...vm, status: { ...vm.status!, process } }, absent, {}, now + 1)
    expect(next.status.backoff?.retryAt).toBe(time(6_000))
  })

  test('the wait ends at its time', () => {
    const vm = machine({}, { ...power('Always', 'Up'), ...failed(2, 5_000) })
    expect(verbs(planOf(vm, absent, {}, now + 4_999))).toEqual([])
    expect(verbs(planOf(vm, absent, {}, now + 5_000))).toEqual(['launch'])
  })

  test('a wall clock that was set back by more than the wait ends it', () => {
    const vm = (retryInMs: number) => machine({}, { ...power('Always', 'Up'), ...failed(2, retryInMs) })
    expect(verbs(planOf(vm(86_400_000), absent))).toEqual(['launch'])
    expect(planOf(vm(5_000), absent).recheckMs).toBe(5_000)
    // Rounded up when it was written.
    expect(planOf(vm(6_000), absent).recheckMs).toBe(6_000)
  })

  test('a healthy run clears it, a short one does not', () => {
    const vm = runningMachine({}, { ...power('Always', 'Up'), ...failed(3, -60_000) })
    const short = planOf(vm, alive('running', { seenForMs: 59_000 }))
    expect(short.status.backoff?.failures).toBe(3)
    expect(short.recheckMs).toBe(1_000)
    expect(planOf(vm, alive('running', { seenForMs: 60_000 })).status.backoff).toBeUndefined()
  })

  test('a machine that is meant to be down has no next try', () => {
    const vm = machine({ runStrategy: 'Halted' }, { ...power('Halted', 'Down'), ...failed(5, 60_000) })
    expect(planOf(vm, absent).status.backoff).toBeUndefined()
  })

  test('a start that is asked for does not wait', () => {
    const request = { action: 'Start' as const, id: 'r', at: time() }
    const status = { ...power('Manual', 'Down'), ...failed(5, 60_000), request }
    expect(verbs(planOf(machine({ runStrategy: 'Manual' }, status), absent))).toEqual(['launch'])
  })
})
