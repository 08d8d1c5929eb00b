import { describe, expect, test } from 'vitest'
import { planHosts } from '../../../src/controllers/hosts/plan.ts'
import type { World } from '../../../src/controllers/hosts/types.ts'
import type { HostLeaseFacts } from '../../../src/resources/host-lease.ts'
import {
  agreed,
  at,
  evidence,
  fencedLease,
  host,
  lease,
  machine,
  now,
  planFor,
  seen,
  world,
} from './fixture.ts'

const said = (what: Partial<HostLeaseFacts>) => lease('a', {}, {}, what)
const mode = (fencing: object) => ({ hosts: [host('a', { spec: { fencing } }), host('b'), host('c')] })
const command = mode({ mode: 'command', command: ['fence_x', '--ip=1'], timeoutSeconds: 30 })
const off = {
  resourceVersion: '7',
  ageMs: 0,
  outcome: { state: 'off', seen: 'status: exit code 2' },
} as const

describe('a host that renews its lease', () => {
  test.each<[string, World, string | undefined, string]>([
    ['is schedulable', world(500), undefined, 'True/Schedulable'],
    [
      'is so however its clock goes',
      world(500, { lease: lease('a', {}, { renewTime: '1999-01-01T00:00:00Z' }) }),
      undefined,
      'True/Schedulable',
    ],
    [
      'not where it is cordoned',
      world(500, { hosts: [host('a', { spec: { unschedulable: true } })] }),
      undefined,
      'False/Cordoned',
    ],
    [
      'not in maintenance',
      world(500, { hosts: [host('a', { spec: { maintenance: { until: at, reason: 'disks' } } })] }),
      undefined,
      'False/Maintenance',
    ],
    [
      'not while it is not ready',
      world(500, { hosts: [host('a', { conditions: [] })] }),
      undefined,
      'False/NotReady',
    ],
    [
      'not while its agent is silent',
      world(500, { lease: said({ agent: 'silent' }) }),
      'Unknown/AgentSilent',
      'False/NotReady',
    ],
  ])('%s', (_, one, ready, schedulable) => {
    expect(planFor(one)).toMatchObject({ ready, schedulable, fenced: 'False/LeaseRenewed', does: [] })
  })

  test('its readiness is for its agent to say', () => {
    expect(planFor(world(500)).ready).toBeUndefined()
  })

  test('so is what its guard does, unless the agent is silent: then the renewal says it', () => {
    expect(planFor(world(500)).guarded).toBeUndefined()
    expect(planFor(world(500, { lease: said({ agent: 'silent' }) })).guarded).toBe('True/LeaseHeld')
  })

  test.each<['Unknown' | 'False' | 'True', string | undefined]>([
    ['Unknown', 'True/LeaseHeld'],
    ['False', undefined],
    ['True', undefined],
  ])('and that nobody guards it, which only we have said, is taken back: %s', (status, after) => {
    const condition = { type: 'Guarded', status, reason: 'X', message: 'x', lastTransitionTime: at }
    const hosts = [host('a', { conditions: [condition] }), host('b'), host('c')]
    expect(planFor(world(500, { hosts })).guarded).toBe(after)
  })
})

describe('what was recorded stays while nothing is known', () => {
  test('of a host whose lease has not been seen to change yet', () => {
    const { watched, ...rest } = world(5_000)
    const sights = new Map(
      [...watched!.sights].map(([name, { lease: one, since }]) => [name, { lease: one, since }]),
    )
    expect(planFor({ ...rest, watched: { ...watched!, sights } }).plan).toEqual({
      conditions: [],
      actions: [],
    })
  })

  test('of all while blind', () => {
    expect(planHosts(world(60_000, { watched: undefined }), now).size).toBe(0)
  })

  test('of a host without a lease, until it was looked for long enough', () => {
    const short = world(0, { watched: seen([[lease('b'), 500]], 5_000) })
    expect(planFor(short).plan).toEqual({ conditions: [], actions: [] })
    const long = world(0, { watched: seen([[lease('b'), 500]], 15_000) })
    expect(planFor(long)).toMatchObject({ ready: 'Unknown/NoLease', fenced: 'Unknown/NoLease', does: [] })
  })
})

describe('a host that is lost', () => {
  const lost = { ready: 'Unknown/LeaseExpired', schedulable: 'False/LeaseExpired' }

  test('is guarded by nobody, unless its agent has said why', () => {
    const saying = (status: 'True' | 'False') => {
      const condition = { type: 'Guarded', status, reason: 'Stopping', message: 'x', lastTransitionTime: at }
      return world(60_000, { hosts: [host('a', { conditions: [condition] }), host('b'), host('c')] })
    }
    expect(planFor(world(60_000)).guarded).toBe('Unknown/LeaseExpired')
    expect(planFor(saying('True')).guarded).toBe('Unknown/LeaseExpired')
    expect(planFor(saying('False')).guarded).toBeUndefined()
  })

  test('is so after the whole duration, and not before', () => {
    expect(planFor(world(9_999)).ready).toBeUndefined()
    expect(planFor(world(10_000))).toMatchObject(lost)
  })

  const refusals: [string, World, string, RegExp][] = [
    [
      'nothing is declared',
      world(60_000, mode({ mode: 'none' })),
      'NoFencing',
      /declare spec.fencing, or.*host fence a --confirm-off/,
    ],
    [
      'a command is declared but not named',
      world(60_000, mode({ mode: 'command' })),
      'NoFencing',
      /spec.fencing.command/,
    ],
    [
      'the lease says nothing',
      world(60_000, { lease: lease('a', { annotations: {} }) }),
      'NoPromise',
      /deadline-ms/,
    ],
    [
      'it promised nothing',
      world(60_000, { lease: said({ selfFence: 'none' }) }),
      'NoPromise',
      /"none", and that counts/,
    ],
    [
      'it promised less than declared',
      world(60_000, { ...mode({ mode: 'watchdog' }), lease: said({ selfFence: 'guard' }) }),
      'NoPromise',
      /watchdog.*"guard"/,
    ],
    [
      'it is in maintenance',
      world(60_000, { lease: said({ maintenance: at }) }),
      'Maintenance',
      /in maintenance until/,
    ],
    [
      'there are two',
      world(60_000, { lease: said({ members: ['a', 'b'] }) }),
      'VoteRefused',
      /it takes three/,
    ],
    ['the brake holds', world(60_000, { brakePercent: 30 }), 'BrakeHeld', /1 of 3 hosts may be lost \(a\)/],
    [
      'the last votes were refused',
      world(60_000, {
        tried: { failures: 1, retryInMs: 500, why: { reason: 'VoteRefused', message: 'c: no' } },
      }),
      'VoteRefused',
      /c: no/,
    ],
  ]
  test.each(refusals)('stays so, and says why, where %s', (_, one, reason, words) => {
    const plan = planFor(one)
    expect(plan).toMatchObject({ ...lost, fenced: `Unknown/${reason}`, does: [] })
    expect(plan.words).toMatch(words)
  })

  test.each<[string, World, string | undefined]>([
    [
      'waits until it has stopped its machines',
      world(12_000, { lease: said({ deadlineMs: 9_000, stopMs: 3_000 }) }),
      undefined,
    ],
    [
      'then votes are asked for',
      world(12_240, { lease: said({ deadlineMs: 9_000, stopMs: 3_000 }) }),
      'askVotes',
    ],
    ['not again before the next try', world(60_000, { tried: { failures: 2, retryInMs: 1 } }), undefined],
    [
      'votes for an older version of the lease do not count',
      world(60_000, { tried: { votes: { ...agreed, resourceVersion: '6' } } }),
      'askVotes',
    ],
    ['nor do too few', world(60_000, { tried: { votes: { ...agreed, consents: ['b'] } } }), 'askVotes'],
    ['nor old ones', world(60_000, { tried: { votes: { ...agreed, ageMs: 31_000 } } }), 'askVotes'],
    ['agreed upon, its lease is taken', world(60_000, { tried: { votes: agreed } }), 'takeLease'],
    [
      'but not before one that held until the vote has stopped its machines',
      world(60_000, { lease: said({ stopMs: 3_700 }), tried: { votes: { ...agreed, ageMs: 1_773 } } }),
      undefined,
    ],
    [
      'which it has then',
      world(60_000, { lease: said({ stopMs: 3_700 }), tried: { votes: { ...agreed, ageMs: 1_774 } } }),
      'takeLease',
    ],
    ['a command runs only after the vote', world(60_000, command), 'askVotes'],
    ['and then', world(60_000, { ...command, tried: { votes: agreed } }), 'runCommand'],
    [
      'again where it failed',
      world(60_000, {
        ...command,
        tried: {
          votes: agreed,
          command: { ...off, outcome: { state: 'failed', reason: 'LiedOff', why: 'on' } },
        },
      }),
      'runCommand',
    ],
    [
      'off, the lease is taken, however long it took',
      world(60_000, { ...command, tried: { votes: { ...agreed, ageMs: 90_000 }, command: off } }),
      'takeLease',
    ],
    [
      'off for an older version is not off',
      world(60_000, { ...command, tried: { votes: agreed, command: { ...off, resourceVersion: '6' } } }),
      'runCommand',
    ],
    [
      'no self-fence is needed for a command',
      world(60_000, {
        ...command,
        lease: said({ selfFence: 'none' }),
        tried: { votes: agreed, command: off },
      }),
      'takeLease',
    ],
  ])('%s', (_, one, step) => {
    expect(planFor(one).does).toEqual(step === undefined ? [] : [step])
  })

  test('what is taken says all that was seen', () => {
    const { action } = planFor(world(12_345, { tried: { votes: agreed } }))
    expect(action).toMatchObject({
      ...{ do: 'takeLease', lease: { metadata: { resourceVersion: '7' } } },
      evidence: {
        ...{
          host: 'a',
          epoch: 4,
          proof: 'Guard',
          by: 'b',
          leaderEpoch: 1,
          silentMs: 12_345,
          neededMs: 10_000,
        },
        ...{ lease: { holder: 'a', epoch: 3, resourceVersion: '7' }, votes: ['b', 'c'] },
      },
    })
  })

  test('an epoch that evidence has already is not given again', () => {
    const old = evidence({ epoch: 9, lease: { epoch: 8, resourceVersion: '1' } })
    const { action } = planFor(world(60_000, { evidence: [old], tried: { votes: agreed } }))
    expect(action).toMatchObject({ evidence: { epoch: 10 } })
  })

  test('a Host that was deleted keeps its lease while machines are there, and loses it then', () => {
    const gone = { hosts: [host('b'), host('c')] }
    expect(planFor(world(60_000, gone)).does).toEqual(['deleteLease'])
    expect(planFor(world(5_000, gone)).does).toEqual([])
    expect(planFor(world(60_000, { ...gone, machines: [machine('m')] })).does).toEqual(['mark'])
  })
})

describe('a host whose lease was taken', () => {
  test.each<[string, World, string[], string]>([
    [
      'by whoever: its evidence is stored first',
      world(100, { lease: fencedLease(), machines: [] }),
      ['storeEvidence'],
      'Unknown/Fencing',
    ],
    ['then it is fenced', world(100, { lease: fencedLease(), evidence: [evidence()] }), [], 'True/Fenced'],
    [
      'says so where nothing says why',
      world(100, { lease: lease('a', {}, { holderIdentity: 'fenced' }) }),
      [],
      'Unknown/EvidenceMissing',
    ],
    [
      'nor of another epoch',
      world(100, {
        lease: lease(
          'a',
          { annotations: fencedLease().metadata.annotations! },
          { holderIdentity: 'fenced', leaseTransitions: 9 },
        ),
      }),
      [],
      'Unknown/EvidenceMissing',
    ],
    [
      'gets a new epoch where its evidence is of something else',
      world(100, {
        lease: fencedLease(),
        evidence: [evidence({ lease: { epoch: 3, resourceVersion: '1' } })],
      }),
      ['takeLease'],
      'Unknown/Fencing',
    ],
  ])('%s', (_, one, does, fenced) => {
    expect(planFor(one)).toMatchObject({ does, fenced, ready: 'Unknown/LeaseExpired' })
  })

  test('names the evidence', () => {
    expect(planFor(world(100, { lease: fencedLease(), evidence: [evidence()] })).words).toContain('a-4')
  })

  test('stays fenced however long it is silent, and is back when it renews', () => {
    expect(planFor(world(900_000, { lease: fencedLease(), evidence: [evidence()] })).fenced).toBe(
      'True/Fenced',
    )
    const back = lease('a', { resourceVersion: '21' }, { leaseTransitions: 4 })
    expect(planFor(world(100, { lease: back, evidence: [evidence()] }))).toMatchObject({
      fenced: 'False/LeaseRenewed',
      does: [],
    })
  })
})
