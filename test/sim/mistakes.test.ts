import { describe, expect, test } from 'vitest'
import type { LaunchRecord, Processes } from '../../src/host/ports.ts'
import type { Mistakes } from '../../src/sim/parts.ts'
import { product } from '../../src/sim/product.ts'
import type { RuleName } from '../../src/sim/rules.ts'
import { play } from '../../src/sim/schedule.ts'
import { report, search } from '../../src/sim/search.ts'

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

const mistakes: Readonly<Record<string, { readonly put: Mistakes; readonly breaks: readonly RuleName[] }>> = {
  'a guard that never stops a machine': {
    put: { fence: () => async () => ({ left: 0 }) },
    breaks: ['OneGuest', 'NoStartAfterFence'],
  },
  'a guard that stops machines too late': {
    put: {
      fence: (stop) => {
        let asked = 0
        // The first ten looks, a second each, find nothing.
        return async () => (asked++ < 10 ? { left: 1 } : stop())
      },
    },
    breaks: ['OneGuest'],
  },
  'guards that say that they have lost the store whenever they are asked': {
    put: {
      answer: (reply) => ('word' in (reply as object) ? { ...(reply as object), word: 'lost' } : reply),
    },
    breaks: ['OneGuest'],
  },
  'a guard that stops machines which are Manual': {
    put: {
      processes: (right) =>
        but(right, { launchRecord: async (uid) => asFailover(await right.launchRecord(uid)) }),
    },
    breaks: ['ManualIsLeftAlone', 'EvidenceBeforeFailover'],
  },
  'a look at /proc that misses QEMUs and does not say so': {
    put: {
      processes: (right) => but(right, { scan: async () => ({ processes: [] }), inspect: () => 'gone' }),
    },
    breaks: ['OneGuest', 'Converges'],
  },
}

/** Within so many schedules each is found. */
const enough = 60

describe('random schedules find', () => {
  test.each(Object.entries(mistakes))('%s', { timeout: 600_000 }, async (_name, { put, breaks }) => {
    const parts = { ...product, mistakes: put }
    const found = await search(1, enough, parts)
    expect(found, `nothing in ${enough} schedules`).toBeDefined()
    if (!found) return
    expect(breaks).toContain(found.violation.rule)
    // What is printed can be played again, and without the mistake it goes well.
    expect(report(found)).toContain(`--seed ${found.schedule.seed}`)
    expect((await play(found.schedule, parts)).violation?.message).toBe(found.violation.message)
    expect((await play(found.schedule, product)).violation).toBeUndefined()
  })
})
