import { expect, it } from 'vitest'
import { runStrategies, type VirtualMachine, type VmAction } from '../../src/resources/vm.ts'
import { type ActionDecision, requestAction } from '../../src/resources/vm-actions.ts'
import { machine, process } from '../controllers/vm/fixture.ts'

const actions = ['Start', 'Stop', 'Restart', 'Pause', 'Unpause', 'Reset'] as const
const env = { id: 'r', at: '2026-01-02T03:04:05Z' }
const up = { strategy: 'Manual', desired: 'Up' } as const
const down = { strategy: 'Manual', desired: 'Down' } as const
const stop = (why: string) => ({ stop: { why, at: env.at, graceSeconds: 30 } })

/** Each state of a machine that starts by request alone, with what each verb does to it, in the order of `actions`. */
const table: readonly (readonly [name: string, vm: VirtualMachine, outcomes: readonly string[]])[] = [
  [
    'stopped',
    machine({ runStrategy: 'Manual' }, { phase: 'Stopped', power: down }),
    ['ok', 'not running', 'start it instead', 'not running', 'not running', 'not running'],
  ],
  [
    'running',
    machine({ runStrategy: 'Manual' }, { phase: 'Running', process, power: up }),
    ['is running', 'ok', 'ok', 'ok', 'not paused', 'ok'],
  ],
  [
    'asked to be paused and not yet seen so',
    machine({ runStrategy: 'Manual' }, { phase: 'Running', process, power: up, pausedByUser: true }),
    ['is running', 'ok', 'ok', 'paused already', 'ok', 'ok'],
  ],
  [
    'paused by a person',
    machine({ runStrategy: 'Manual' }, { phase: 'Paused', process, power: up, pausedByUser: true }),
    ['is running', 'ok', 'ok', 'paused already', 'ok', 'ok'],
  ],
  [
    'held for an I/O error',
    machine({ runStrategy: 'Manual' }, { phase: 'Paused', reason: 'IOError', process, power: up }),
    ['is running', 'ok', 'ok', 'ok', 'ok', 'ok'],
  ],
  [
    'silent while paused by a person',
    machine({ runStrategy: 'Manual' }, { phase: 'Unresponsive', process, power: up, pausedByUser: true }),
    ['is running', 'ok', 'ok', 'paused already', 'ok', 'ok'],
  ],
  ...['Stop', 'Deleted'].map(
    (why) =>
      [
        `being stopped (${why})`,
        machine({ runStrategy: 'Manual' }, { phase: 'Stopping', process, power: down, ...stop(why) }),
        [
          'being stopped; start it once',
          'being stopped already',
          'being stopped; start it once',
          ...['being stopped', 'being stopped', 'being stopped'],
        ],
      ] as const,
  ),
  [
    'about to be stopped, by what was recorded',
    machine({ runStrategy: 'Manual' }, { phase: 'Running', process, power: down }),
    [
      'being stopped; start it once',
      'being stopped already',
      'being stopped; start it once',
      ...['being stopped', 'being stopped', 'being stopped'],
    ],
  ],
  [
    'being stopped while paused by a person',
    machine(
      { runStrategy: 'Manual' },
      { phase: 'Stopping', process, power: down, pausedByUser: true, ...stop('Stop') },
    ),
    [
      'being stopped; start it once',
      'being stopped already',
      'being stopped; start it once',
      ...['being stopped', 'being stopped', 'being stopped'],
    ],
  ],
  [
    'being restarted',
    machine({ runStrategy: 'Manual' }, { phase: 'Stopping', process, power: up, ...stop('Restart') }),
    ['is running', 'ok', 'being restarted already', 'being stopped', 'being stopped', 'being stopped'],
  ],
  [
    'being moved',
    machine({ runStrategy: 'Manual' }, { phase: 'Stopping', process, power: up, ...stop('Move') }),
    ['is running', 'ok', 'start on another host', 'being stopped', 'being stopped', 'being stopped'],
  ],
  [
    'being deleted',
    machine({ runStrategy: 'Manual' }, { process, power: up }, { deletionTimestamp: env.at }),
    actions.map(() => 'being deleted'),
  ],
]

const said = (decision: ActionDecision) =>
  'refuse' in decision ? decision.refuse : 'request' in decision ? 'ok' : decision.spec.runStrategy

it.each(table)('%s', (_name, vm, outcomes) => {
  const decided = actions.map((action) => said(requestAction(vm, action, env)))
  expect(decided).toEqual(outcomes.map((words) => (words === 'ok' ? 'ok' : expect.stringContaining(words))))
})

it.each(table)('%s: pause and unpause never contradict each other', (_name, vm) => {
  for (const runStrategy of runStrategies) {
    const under = { ...vm, spec: { ...vm.spec, runStrategy } }
    const [pause, unpause] = (['Pause', 'Unpause'] as const).map((one) =>
      said(requestAction(under, one, env)),
    )
    expect([pause, unpause]).not.toEqual(['it is paused already', 'it is not paused'])
    if (pause === 'it is paused already') expect(unpause).toBe('ok')
    if (unpause === 'it is not paused') expect(pause).toBe('ok')
  }
})

it('a strategy that says the opposite is rewritten, whatever is under way', () => {
  const going = (runStrategy: string, action: VmAction) =>
    said(requestAction(machine({ runStrategy }, { process, ...stop('Restart') }), action, env))
  expect(going('Always', 'Stop')).toBe('Halted')
  expect(going('Halted', 'Start')).toBe('Always')
  expect(going('Halted', 'Pause')).toBe('it is being stopped')
})

it('a machine that would not start again is not restarted, and the condition is named', () => {
  const told = (type: string, reason: string, generation = 1) => {
    const condition = { type, status: 'False', reason, message: 'disk data: would shrink' } as const
    const conditions = [{ ...condition, lastTransitionTime: env.at, observedGeneration: generation }]
    return said(requestAction(machine({}, { process, conditions }, { generation: 1 }), 'Restart', env))
  }
  expect(told('DisksReady', 'DiskFailed')).toBe(
    'it would not start again: condition DisksReady is False, DiskFailed: disk data: would shrink',
  )
  expect(told('Synchronized', 'Refused')).toContain('condition Synchronized is False, Refused')
  for (const reason of ['Applying', 'Failed', 'NoAnswer']) expect(told('Synchronized', reason)).toBe('ok')
  expect(told('DisksReady', 'Preparing')).toBe('ok')
  expect(told('Synchronized', 'Refused', 0), 'of an older spec').toBe('ok')
})

it('a start that the run strategy does by itself says how to have it at once', () => {
  expect(said(requestAction(machine({}, { process }), 'Start', env))).toBe('it is running already')
  expect(said(requestAction(machine({}), 'Start', env))).toBe(
    'its run strategy starts it; to try at once, restart it',
  )
})
