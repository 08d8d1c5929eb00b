import { describe, expect, test } from 'vitest'
import { planHosts } from '../../../src/controllers/hosts/plan.ts'
import type { EvidenceSpec, World } from '../../../src/controllers/hosts/types.ts'
import { neededMs, votePassed } from '../../../src/controllers/hosts/verdict.ts'
import type { HostLeaseFacts } from '../../../src/resources/host-lease.ts'
import { agreed, at, evidence, facts, host, lease, machine, now, planFor, seen, world } from './fixture.ts'

const said = (what: Partial<HostLeaseFacts>) => lease('a', {}, {}, what)
const mode = (fencing: object) => ({ hosts: [host('a', { spec: { fencing } }), host('b'), host('c')] })
const command = mode({ mode: 'command', command: ['fence_x', '--ip=1'], timeoutSeconds: 30 })
const off = {
  resourceVersion: '7',
  ageMs: 0,
  outcome: { state: 'off', seen: 'status: exit code 2' },
} as const

const fencedLease = (spec: EvidenceSpec = evidence().spec) =>
  lease(
    'a',
    {
      resourceVersion: '20',
      annotations: { ...lease('a').metadata.annotations, 'plasmavmc.io/fence': JSON.stringify(spec) },
    },
    { holderIdentity: 'fenced', leaseTransitions: spec.epoch },
  )

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

describe('the brake', () => {
  const silent = (ms: readonly number[]) => seen(ms.map((one, i) => [lease('abcdefgh'[i]!), one] as const))
  const hosts = (n: number) => [...'abcdefgh'].slice(0, n).map((name) => host(name))
  const tried = { votes: agreed }
  test.each<[string, number[], number, string[]]>([
    ['one of three', [60_000, 0, 0], 50, ['takeLease']],
    ['one of two', [60_000, 0], 50, []],
    ['two of four', [60_000, 60_000, 0, 0], 50, []],
    ['two of five', [60_000, 60_000, 0, 0, 0], 50, ['takeLease']],
    ['one that may be lost counts', [60_000, 5_000, 0, 0], 50, []],
    ['one that has just renewed does not', [60_000, 4_999, 0, 0], 50, ['takeLease']],
    ['more than half is never allowed', [60_000, 60_000, 0], 100, []],
    ['less may be', [60_000, 0, 0, 0, 0], 20, []],
    ['and nothing', [60_000, 0, 0, 0, 0], 0, []],
  ])('%s', (_, ms, brakePercent, does) => {
    const one = world(0, { watched: silent(ms), hosts: hosts(ms.length), brakePercent, tried })
    expect(planFor(one).does).toEqual(does)
    if (does.length === 0) expect(planFor(one).fenced).toBe('Unknown/BrakeHeld')
  })

  test('hosts that were fenced, and those never seen to renew, count too', () => {
    const fenced = lease('b', {}, { holderIdentity: 'fenced' })
    const one = { hosts: hosts(4), tried }
    const leases = [lease('a'), fenced, lease('c'), lease('d')].map(
      (l, i) => [l, i === 0 ? 60_000 : 0] as const,
    )
    expect(planFor(world(0, { ...one, watched: seen(leases) })).fenced).toBe('Unknown/BrakeHeld')
  })

  test('says so on every host that is lost', () => {
    const plans = planHosts(world(0, { watched: silent([60_000, 60_000, 0]), hosts: hosts(3) }), now)
    const reasons = ['a', 'b', 'c'].map(
      (name) => plans.get(name)?.conditions.find(({ type }) => type === 'Fenced')?.reason,
    )
    expect(reasons).toEqual(['BrakeHeld', 'BrakeHeld', 'LeaseRenewed'])
  })
})

describe("a person's word", () => {
  const claim = (resourceVersion = '7', more: Partial<EvidenceSpec> = {}) =>
    evidence({ proof: 'Operator', by: 'alice', lease: { epoch: 3, resourceVersion }, ...more })

  test.each<[string, World, string[], string]>([
    [
      'suffices without fencing, votes and brake',
      world(60_000, { ...mode({ mode: 'none' }), evidence: [claim()], brakePercent: 0 }),
      ['takeLease'],
      'Unknown/Fencing',
    ],
    [
      'and in maintenance',
      world(60_000, { lease: said({ maintenance: at }), evidence: [claim()] }),
      ['takeLease'],
      'Unknown/Fencing',
    ],
    ['waits until the host is lost', world(9_000, { evidence: [claim()] }), [], 'False/LeaseRenewed'],
    [
      'is refused while the lease is renewed',
      world(500, { evidence: [claim('6')] }),
      ['refuseClaim'],
      'False/LeaseRenewed',
    ],
    [
      'counts for nothing once the host was heard of again',
      world(60_000, { evidence: [claim('6')] }),
      ['refuseClaim'],
      'Unknown/ClaimRefused',
    ],
    [
      'and without a version of the lease',
      world(60_000, { evidence: [evidence({ proof: 'Operator', lease: undefined })] }),
      ['refuseClaim'],
      'Unknown/ClaimRefused',
    ],
    [
      'is not one for another epoch',
      world(60_000, { ...mode({ mode: 'none' }), evidence: [claim('7', { epoch: 5 })] }),
      [],
      'Unknown/NoFencing',
    ],
    [
      'nor for another host',
      world(60_000, { ...mode({ mode: 'none' }), evidence: [claim('7', { host: 'b' })] }),
      [],
      'Unknown/NoFencing',
    ],
    [
      'adds to a fencing that there was',
      world(100, { lease: fencedLease(), evidence: [evidence(), claim('20', { epoch: 5 })] }),
      ['takeLease'],
      'Unknown/Fencing',
    ],
  ])('%s', (_, one, does, fenced) => {
    expect(planFor(one)).toMatchObject({ does, fenced })
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

test('the time that is needed', () => {
  expect(neededMs(facts(), 10_000)).toBe(10_000)
  expect(neededMs(facts({ deadlineMs: 60_000, stopMs: 1 }), 10_000)).toBe(61_202)
})

test.each<[string[], string[], boolean]>([
  [['a', 'b', 'c'], ['b', 'c'], true],
  [['a', 'b', 'c'], ['b'], false],
  [['a', 'b', 'c'], ['a', 'b'], false],
  [['a', 'b', 'c'], ['b', 'b', 'b'], false],
  [['a', 'b', 'c'], ['b', 'x'], false],
  [['a', 'b', 'c', 'd'], ['b', 'c'], false],
  [['a', 'b', 'c', 'd'], ['b', 'c', 'd'], true],
  [['b', 'c'], ['b'], false],
  [[], [], false],
])('of %j do %j pass a vote on a: %s', (members, consents, passed) => {
  expect(votePassed(facts({ members }), 'a', consents)).toBe(passed)
})
