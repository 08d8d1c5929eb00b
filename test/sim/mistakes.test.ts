import { describe, expect, test } from 'vitest'
import type { LaunchRecord, Processes, Tenure } from '../../src/host/ports.ts'
import type { Mistakes } from '../../src/sim/parts.ts'
import { product } from '../../src/sim/product.ts'
import type { RuleName } from '../../src/sim/rules.ts'
import { play } from '../../src/sim/schedule.ts'
import { type Broken, firstBroken, report, search } from '../../src/sim/search.ts'

/** The right port with some of its members put wrong. */
function but(right: Processes, wrong: Partial<Processes>): Processes {
  return new Proxy(right, {
    get(target, name) {
      const value = Reflect.get(wrong, name) ?? Reflect.get(target, name)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function asFailover(record: LaunchRecord | undefined): LaunchRecord | undefined {
  if (!record) return undefined
  const spec = { ...record.manifest.spec, recovery: { onHostLoss: 'Failover' as const } }
  return { ...record, manifest: { ...record.manifest, spec } }
}

/** Takes it that the host holds its lease, under the epoch that was heard of last, whatever its guard says. */
function takenForHeld(read: () => Tenure): () => Tenure {
  let epoch = 1
  return () => {
    const now = read()
    if (now.state === 'held') epoch = now.epoch
    return { state: 'held', epoch, leftMs: 5_000 }
  }
}

interface Mistake {
  readonly put: Mistakes
  readonly breaks: readonly RuleName[]
  /** Within so many schedules it is found. */
  readonly within: number
}

const mistakes: Readonly<Record<string, Mistake>> = {
  'a guard that never stops a machine': {
    put: { fence: () => async () => ({ left: 0 }) },
    breaks: ['OneGuest', 'NoStartAfterFence'],
    within: 60,
  },
  'a guard that stops machines too late': {
    put: {
      fence: (stop) => {
        let asked = 0
        // The first forty looks, four a second, find nothing.
        return async () => (asked++ < 40 ? { left: 1 } : stop())
      },
    },
    breaks: ['OneGuest'],
    within: 60,
  },
  'guards that say that they have lost the store whenever they are asked': {
    put: {
      answer: (reply) => ('word' in (reply as object) ? { ...(reply as object), word: 'lost' } : reply),
    },
    breaks: ['OneGuest'],
    within: 60,
  },
  'a guard that stops machines which are Manual': {
    put: {
      processes: (right) =>
        but(right, { launchRecord: async (uid) => asFailover(await right.launchRecord(uid)) }),
    },
    breaks: ['ManualIsLeftAlone', 'EvidenceBeforeFailover'],
    within: 200,
  },
  'a look at /proc that misses QEMUs and does not say so': {
    put: {
      processes: (right) => but(right, { scan: async () => ({ processes: [] }), inspect: () => 'gone' }),
    },
    breaks: ['OneGuest', 'Converges'],
    within: 60,
  },
  'a leader that takes everybody for having agreed': {
    put: {
      votes:
        () =>
        async (_lease, { members }) => ({ consents: [...members], refusals: [] }),
    },
    breaks: ['OneGuest'],
    within: 120,
  },
  'an agent that starts guests whether its host holds the lease or not': {
    put: { tenure: takenForHeld },
    breaks: ['OneGuest', 'NoStartAfterFence'],
    within: 200,
  },
  'a host whose clock runs three times too fast': {
    put: { rate: (right, host) => (host === 'host-b' ? right * 3 : right) },
    breaks: ['OneGuest'],
    within: 200,
  },
  'a store that writes whatever it is asked to': {
    put: { blindWrites: true },
    breaks: ['EvidenceBeforeFailover', 'SpecIsTheUsers', 'OneGuest', 'NoStartAfterFence'],
    within: 100,
  },
}

describe('random schedules find', () => {
  test.each(Object.entries(mistakes))('%s', { timeout: 600_000 }, async (_name, { put, breaks, within }) => {
    const parts = { ...product, mistakes: put }
    const found = await firstBroken(1, within, parts)
    expect(found, `nothing in ${within} schedules`).toBeDefined()
    if (!found) return
    expect(breaks).toContain(found.violation.rule)
    // It goes the same way again, and without the mistake it goes well.
    expect((await play(found.course, parts)).violation?.message).toBe(found.violation.message)
    expect((await play(found.course, product)).violation).toBeUndefined()
  })
})

const faultsOf = ({ course }: Broken) => course.schedules.flatMap(({ faults }) => faults).length

test('what is found is made smaller, and told so that it can be played again', async () => {
  const { put, within } = mistakes['a guard that never stops a machine'] as Mistake
  const parts = { ...product, mistakes: put }
  const [whole, found] = [await firstBroken(1, within, parts), await search(1, within, parts)]
  if (!whole || !found) throw new Error(`nothing in ${within} schedules`)
  expect(faultsOf(found)).toBeLessThanOrEqual(faultsOf(whole))
  expect(found.violation.rule).toBe(whole.violation.rule)
  expect(found.log.length).toBeGreaterThan(0)
  expect(report(found)).toContain(`--seed ${whole.course.seed}`)
  expect((await play(found.course, parts)).violation?.message).toBe(found.violation.message)
})
