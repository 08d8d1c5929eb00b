import { describe, expect, test } from 'vitest'
import { type Heard, type Hearing, hear, heardOf } from '../../../src/controllers/vm/heard.ts'
import { parseEvent } from '../../../src/qmp/events.ts'
import type { VmStatus } from '../../../src/resources/vm.ts'
import { absent, alive, noAnswer, now, planOf, recorded, runningMachine, time, verbs } from './fixture.ts'

const up: Partial<VmStatus> = { power: { strategy: 'Always', desired: 'Up' } }
const timestamp = { seconds: now / 1000, microseconds: 5 }
const parsed = (event: string, data: Record<string, unknown>) =>
  heardOf(parseEvent({ event, data, timestamp }), 0)
const reset = (byGuest: boolean): Heard => ({ what: 'reset', byGuest, reason: '', at: time() })
const watchdog = (action: string): Heard => ({ what: 'watchdog', action, at: time() })
const told = (next: ReturnType<typeof planOf>) => next.happenings.map(({ reason }) => reason)

describe('what is heard', () => {
  test.each([
    [
      'RESET',
      { guest: true, reason: 'guest-reset' },
      { what: 'reset', byGuest: true, reason: 'guest-reset' },
    ],
    [
      'SHUTDOWN',
      { guest: false, reason: 'host-ui' },
      { what: 'shutdown', byGuest: false, reason: 'host-ui' },
    ],
    ['WATCHDOG', { action: 'reset' }, { what: 'watchdog', action: 'reset' }],
    ['GUEST_PANICKED', { action: 'pause' }, { what: 'panic', told: '' }],
    [
      'GUEST_PANICKED',
      { action: 'pause', info: { type: 'hyper-v', arg1: 209, arg2: 16 } },
      { what: 'panic', told: 'type hyper-v, arg1 0xd1, arg2 0x10' },
    ],
    [
      'BLOCK_IO_ERROR',
      {
        device: '',
        'node-name': 'disk-a',
        operation: 'write',
        action: 'stop',
        nospace: true,
        reason: 'No space',
      },
      { what: 'ioError', node: 'disk-a', cause: 'no space left on its storage', noSpace: true },
    ],
    [
      'BLOCK_IO_ERROR',
      { device: '', operation: 'read', action: 'stop', reason: 'Input/output error' },
      { what: 'ioError', cause: 'read failed: Input/output error', noSpace: false },
    ],
  ])('%s %j', (event, data, wanted) => {
    expect(parsed(event, data)).toEqual({ at: time(), ...wanted })
  })

  test('nothing else, and nothing malformed, is heard', () => {
    expect(parsed('STOP', {})).toBeUndefined()
    expect(parsed('RESET', { guest: 'yes' })).toBeUndefined()
    expect(heardOf(parseEvent({ event: 'RESET', data: { guest: true, reason: '' } }), now)).toBeUndefined()
  })

  test('a storm is bounded, the last ones stay', () => {
    const hearing: Hearing = {}
    for (let i = 0; i < 1_000; i++) hear(hearing, { what: 'watchdog', action: 'none', at: String(i) }, i)
    expect(hearing.heard).toHaveLength(16)
    expect(hearing.heard?.at(-1)?.at).toBe('999')
  })

  test.each<[string, readonly [Heard, number][], number]>([
    [
      'a reboot and what firmware makes of it',
      [
        [reset(true), 0],
        [reset(true), 177],
        [reset(true), 2_100],
      ],
      1,
    ],
    [
      'an admin’s reset, and a reboot of a guest that was up at once',
      [
        [reset(false), 0],
        [reset(true), 150],
        [reset(true), 2_300],
      ],
      2,
    ],
    [
      'a guest that does nothing but reboot',
      [
        [reset(true), 0],
        [reset(true), 1_900],
        [reset(true), 3_800],
        [reset(true), 5_700],
      ],
      2,
    ],
    [
      'an admin’s reset and what firmware makes of it',
      [
        [reset(false), 0],
        [reset(true), 124],
      ],
      1,
    ],
    [
      'a watchdog’s reset',
      [
        [watchdog('reset'), 0],
        [reset(true), 1],
        [reset(true), 200],
      ],
      1,
    ],
    [
      'two reboots',
      [
        [reset(true), 0],
        [reset(true), 5_000],
      ],
      2,
    ],
    [
      'a watchdog that does nothing, and a reboot',
      [
        [watchdog('none'), 0],
        [reset(true), 1],
      ],
      2,
    ],
    [
      'a reboot, and a watchdog soon after',
      [
        [reset(true), 0],
        [watchdog('reset'), 100],
        [reset(true), 101],
      ],
      2,
    ],
  ])('%s', (_name, events, count) => {
    const hearing: Hearing = {}
    for (const [one, at] of events) hear(hearing, one, at)
    expect(hearing.heard).toHaveLength(count)
    expect(hearing.heard?.[0]).toBe(events[0]?.[0])
  })
})

describe('a running guest', () => {
  const vm = runningMachine({ devices: { watchdog: { action: 'reset' } } }, up)

  test('that reboots is counted and told of, once', () => {
    const next = planOf(vm, alive(), { heard: [reset(true)] })
    expect(next.status.guest).toEqual({ reboots: 1, watchdogs: 0, lastRebootAt: time() })
    expect(told(next)).toEqual(['GuestRebooted'])
    const later = planOf(recorded(vm, next), alive())
    expect(told(later)).toEqual([])
    expect(later.status.guest?.reboots).toBe(1)
    const again = planOf(recorded(vm, next), alive(), { heard: [reset(true), reset(true)] })
    expect(again.status.guest?.reboots).toBe(3)
  })

  test('that is reset by an admin did not reboot', () => {
    const next = planOf(vm, alive(), { heard: [reset(false)] })
    expect(next.status.guest).toBeUndefined()
    expect(told(next)).toEqual([])
  })

  test('that its watchdog resets did not reboot either', () => {
    const next = planOf(vm, alive(), { heard: [watchdog('reset')] })
    expect(next.status.guest).toMatchObject({ reboots: 0, watchdogs: 1, lastWatchdogAt: time() })
    expect(told(next)).toEqual(['WatchdogFired'])
  })

  test('what is heard of a QEMU that does not answer waits', () => {
    const next = planOf(vm, alive(noAnswer), { heard: [reset(true)] })
    expect(next.status.guest).toBeUndefined()
  })

  test('a new launch begins a new count', () => {
    const counted = runningMachine({}, { ...up, guest: { reboots: 2, watchdogs: 1 } })
    const next = planOf(counted, absent)
    expect(verbs(next)).toEqual(['launch'])
    expect(next.status.guest).toBeUndefined()
  })
})

describe('a watchdog', () => {
  const vm = (action: string, strategy = 'RerunOnFailure') =>
    runningMachine({ runStrategy: strategy, devices: { watchdog: { action } } })

  test('that powers off ends the run as a failure, whatever was heard', () => {
    for (const heard of [[], [watchdog('pause')]]) {
      const ended = planOf(vm('poweroff'), alive('watchdog'), { heard })
      expect(verbs(ended)).toEqual(['quit'])
      expect(ended.status.lastExit).toMatchObject({ reason: 'WatchdogPoweroff', launchId: 'l-1' })
      expect(ended.happenings.filter(({ type }) => type === 'Warning')).toHaveLength(1)
      const next = planOf(recorded(vm('poweroff'), ended), absent)
      expect(verbs(next), 'a failure comes up again').toEqual(['launch'])
      expect(next.status.backoff?.failures).toBe(1)
    }
  })

  test('that pauses holds the guest and tells once', () => {
    const held = planOf(vm('pause'), alive('watchdog'), { heard: [watchdog('pause')] })
    expect(verbs(held)).toEqual([])
    expect(held.status).toMatchObject({ phase: 'Paused', reason: 'Watchdog', guest: { watchdogs: 1 } })
    expect(told(held)).toEqual(['Watchdog'])
    expect(told(planOf(recorded(vm('pause'), held), alive('watchdog')))).toEqual([])
  })

  test('an end that is recorded stays one when the action is changed meanwhile', () => {
    const ended = planOf(vm('poweroff'), alive('watchdog'))
    expect(verbs(planOf(recorded(vm('pause'), ended), alive('watchdog')))).toEqual(['quit'])
  })
})

test('a panic says what the guest said of it', () => {
  const heard: Heard[] = [{ what: 'panic', told: 'type hyper-v, arg1 0xd1', at: time() }]
  const next = planOf(runningMachine({}, up), alive('guest-panicked'), { heard })
  expect(next.status.lastExit?.message).toBe('the guest kernel panicked: type hyper-v, arg1 0xd1')
  const plain = planOf(runningMachine({}, up), alive('guest-panicked'))
  expect(plain.status.lastExit).toMatchObject({
    reason: 'GuestPanicked',
    message: 'the guest kernel panicked',
  })
})

describe('an I/O error names the disk and the cause', () => {
  const vm = runningMachine({ disks: [{ name: 'data', size: '1Gi' }] }, up)
  const heard: Heard[] = [
    { what: 'ioError', node: 'disk-data', cause: 'write failed: EIO', noSpace: false, at: time() },
  ]

  test.each([
    ['QEMU’s answer', [{ name: 'data', noSpace: true }], [], 'disk data: no space left on its storage'],
    ['both', [{ name: 'data', noSpace: false }], heard, 'disk data: write failed: EIO'],
    ['the event', undefined, heard, 'disk data: write failed: EIO'],
    ['neither', undefined, [], 'a disk failed'],
  ])('from %s', (_from, failedDisks, events, words) => {
    const fact = alive('io-error', failedDisks ? { failedDisks } : {})
    const next = planOf(vm, fact, { heard: events })
    expect(next.status.message).toBe(`${words}; resumed with back-off`)
    const later = planOf(recorded(vm, next), alive('io-error'))
    expect(later.status.message, 'it stays').toBe(next.status.message)
    expect(later.happenings).toEqual([])
  })
})
