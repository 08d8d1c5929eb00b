import { describe, expect, test } from 'vitest'
import { planHosts } from '../../../src/controllers/hosts/plan.ts'
import type { EvidenceSpec, World } from '../../../src/controllers/hosts/types.ts'
import { neededMs, votePassed } from '../../../src/controllers/hosts/verdict.ts'
import type { HostLeaseFacts } from '../../../src/resources/host-lease.ts'
import {
  agreed,
  at,
  evidence,
  facts,
  fencedLease,
  host,
  lease,
  now,
  planFor,
  seen,
  world,
} from './fixture.ts'

const said = (what: Partial<HostLeaseFacts>) => lease('a', {}, {}, what)
const mode = (fencing: object) => ({ hosts: [host('a', { spec: { fencing } }), host('b'), host('c')] })

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
