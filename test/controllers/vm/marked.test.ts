import { describe, expect, test } from 'vitest'
import { isMarked } from '../../../src/controllers/hosts/machines.ts'
import type { Mark } from '../../../src/controllers/hosts/types.ts'
import type { ProcessFact } from '../../../src/controllers/vm/types.ts'
import {
  absent,
  alive,
  condition,
  held,
  here,
  lost,
  machine,
  noAnswer,
  planOf,
  process,
  time,
  under,
  unknown,
  verbs,
} from './fixture.ts'

const words = 'host host-a is lost since 2026-01-01T11:59:00Z; it waits for host-a'
const mark: Mark = { phase: 'Unknown', reason: 'HostLost', message: words, key: 'HostLost: x' }
/** As the leader leaves it, of a host whose agent reaches the store. */
const marked = (more = {}) =>
  machine({}, { ...here, process, phase: 'Unknown', reason: 'HostLost', message: words, ...more })

describe('while the host is lost, what the leader has said of a machine stands', () => {
  const stop = { why: 'Restart', at: time(-60_000), graceSeconds: 5 }
  test.each<[string, ProcessFact, object, RegExp, string[]]>([
    ['that runs', alive(), {}, /says: Running$/, []],
    ['that is being stopped in vain', alive(noAnswer), { stop }, /says: Stopping \(Killing\): /, ['kill']],
    [
      'that does not answer',
      alive(noAnswer, { silentForMs: 60_000 }),
      {},
      /says: Unresponsive \(NoAnswer\): /,
      [],
    ],
    ['of which nothing can be told', unknown, {}, /says: Unknown \(ProcessUnknown\): /, []],
    ['that has ended and may not start', absent, {}, /says: Pending \(LeaseLost\): /, []],
  ])('%s', (_what, fact, more, message, actions) => {
    const vm = marked(more)
    const seen = under(lost, { stopElapsedMs: 60_000 })
    const next = planOf(vm, fact, seen)
    expect(next.status).toMatchObject({ phase: 'Unknown', reason: 'HostLost' })
    expect(next.status.message?.startsWith(words)).toBe(true)
    expect(next.status.message).toMatch(message)
    expect(condition(next, 'Ready')).toMatchObject({ status: 'Unknown', reason: 'HostLost' })
    // What has to be done is done all the same.
    expect(verbs(next)).toEqual(actions)
    // The leader takes it for marked, and the next pass has nothing to write nor to tell.
    const after = { ...vm, status: next.status }
    expect(isMarked(after, mark)).toBe(true)
    const again = planOf(after, fact, seen)
    expect(again.status).toEqual(next.status)
    expect(again.happenings.filter(({ reason }) => reason !== 'Stopping')).toEqual([])
  })

  test('and goes as soon as the lease is held', () => {
    const next = planOf(marked(), alive(), under(held()))
    expect(next.status).toMatchObject({ phase: 'Running', reason: 'Running' })
    expect(next.status.message).toBeUndefined()
    expect(next.happenings.map(({ reason }) => reason)).toContain('Running')
  })

  test('a machine that was not marked says what is seen', () => {
    const vm = machine({}, { ...here, process, phase: 'Running', reason: 'Running' })
    expect(planOf(vm, alive(), under(lost)).status).toMatchObject({ phase: 'Running' })
  })
})
