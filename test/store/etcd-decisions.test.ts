import { describe, expect, it } from 'vitest'
import { apiErrorOf, failureOf } from '../../src/store/etcd-errors.ts'
import { HistoryBudget } from '../../src/store/etcd-history.ts'
import { EtcdKeys, sharedPrefix } from '../../src/store/etcd-keys.ts'

describe('what a failed call to etcd means', () => {
  it.each([
    [
      '14 UNAVAILABLE: No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1',
      'unsent',
    ],
    ['14 UNAVAILABLE: Channel closed before call started', 'unsent'],
    ['14 UNAVAILABLE: etcdserver: no leader', 'unsent'],
    ['8 RESOURCE_EXHAUSTED: etcdserver: too many requests', 'unsent'],
    ['16 UNAUTHENTICATED: etcdserver: invalid auth token', 'token'],
    ['3 INVALID_ARGUMENT: etcdserver: revision of auth store is old', 'token'],
    // Any of these may have been executed.
    ['14 UNAVAILABLE: Connection dropped', 'unknown'],
    ['14 UNAVAILABLE: read ECONNRESET', 'unknown'],
    ['14 UNAVAILABLE: etcdserver: request timed out', 'unknown'],
    ['14 UNAVAILABLE: etcdserver: request timed out, possibly due to previous leader failure', 'unknown'],
    ['14 UNAVAILABLE: etcdserver: leader changed', 'unknown'],
    ['14 UNAVAILABLE: etcdserver: server stopped', 'unknown'],
    ['4 DEADLINE_EXCEEDED: Deadline exceeded after 1.5s', 'unknown'],
    ['13 INTERNAL: Received RST_STREAM with code 2', 'unknown'],
    ['2 UNKNOWN: whatever comes in later versions', 'unknown'],
    ['11 OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted', 'compacted'],
    ['11 OUT_OF_RANGE: etcdserver: mvcc: required revision is a future revision', 'future'],
    ['3 INVALID_ARGUMENT: etcdserver: request is too large', 'too-large'],
    ['8 RESOURCE_EXHAUSTED: grpc: received message larger than max (9 vs. 5)', 'too-large'],
    ['8 RESOURCE_EXHAUSTED: Received message larger than max (9 vs 5)', 'page-too-large'],
    ['8 RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded', 'no-space'],
    ['7 PERMISSION_DENIED: etcdserver: permission denied', 'denied'],
    ['3 INVALID_ARGUMENT: etcdserver: duplicate key given in txn request', 'refused'],
  ])('%s', (message, kind) => {
    const failure = failureOf(new Error(message))
    expect(failure.kind).toBe(kind)
    expect(failure.transient).toBe(['unsent', 'token', 'unknown'].includes(kind))
    const reason = kind === 'too-large' ? 'RequestEntityTooLarge' : 'ServiceUnavailable'
    expect(apiErrorOf(failure, "can't be written")).toMatchObject({ reason, hint: expect.any(String) })
  })
})

describe('how much of the past etcd keeps', () => {
  it('is at least the limit and at most twice of it', () => {
    const budget = new HistoryBudget({ limit: 100, bytes: 1e9 }, 1_000n)
    let oldest = 1_000n
    for (let revision = 1_001n; revision <= 3_000n; revision += 1n) {
      const to = budget.wrote(revision, 10)
      if (to !== undefined) {
        expect(to).toBe(revision - 100n)
        oldest = to
      }
      expect(revision - oldest).toBeLessThan(200n)
    }
    expect(oldest).toBeGreaterThan(2_800n)
  })

  it('is never more bytes than the limit, few at a time or many', () => {
    for (const weight of [1, 999, 100_000]) {
      const budget = new HistoryBudget({ limit: 1_000_000, bytes: 300_000 }, 0n)
      let oldest = 0n
      for (let revision = 1n; revision <= 2_000n; revision += 1n) {
        oldest = budget.wrote(revision, weight) ?? oldest
        expect(Number(revision - oldest) * weight).toBeLessThanOrEqual(300_000)
      }
      // What still fits is not thrown away for nothing.
      if (weight === 1) expect(oldest).toBe(0n)
      else expect(Number(2_000n - oldest) * weight).toBeGreaterThan(weight === 999 ? 140_000 : 0)
    }
  })

  it('goes on from where others have come, and never backwards', () => {
    const budget = new HistoryBudget({ limit: 10, bytes: 1e9 }, 0n)
    expect(budget.wrote(500n, 1)).toBe(490n)
    expect(budget.wrote(501n, 1)).toBeUndefined()
    expect(budget.wrote(509n, 1)).toBeUndefined()
    expect(budget.wrote(510n, 1)).toBe(500n)
  })
})

describe('where things are in etcd', () => {
  it('is below the prefix, objects apart from what knows of writes', () => {
    const keys = new EtcdKeys('/x')
    expect([keys.of('/core/events/a').toString(), keys.writes]).toEqual([
      '/x/registry/core/events/a',
      '/x/writes/',
    ])
    expect([keys.end('/').toString(), keys.after('/a').toString()]).toEqual([
      '/x/registry0',
      '/x/registry/a\0',
    ])
  })

  it.each([
    ['/plasmavmc.io/virtualmachines/', '/plasmavmc.io/virtualmachines/'],
    ['/plasmavmc.io/virtualmachines/default/', '/plasmavmc.io/virtualmachines/'],
    ['/core/events/default/', '/core/events/'],
    ['/a/', '/a/'],
    ['/', '/'],
  ])('watches of %s share that of %s', (prefix, shared) => {
    expect(sharedPrefix(prefix)).toBe(shared)
  })
})
