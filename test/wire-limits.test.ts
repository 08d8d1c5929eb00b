import { expect, test } from 'vitest'
import { loadConfig } from '../src/config.ts'
import { defaultLimits } from '../src/server/limits.ts'
import { limitsOf } from '../src/wire-limits.ts'

const limits = (flags: object) => limitsOf(loadConfig(flags, {}, { uid: 0, machine: 'm' }))

test('left alone, the settings are the defaults of the server', () => {
  expect(limits({})).toEqual(defaultLimits)
})

test('one number says what one user may have, and what is left to others', () => {
  const flags = {
    ...{ maxConnections: '1000', maxRequestsInflight: '16', maxRequestsWaiting: '800', requestRate: '50' },
    ...{ watchesPerUser: '30', consolesPerUser: '2' },
  }
  expect(limits(flags)).toEqual({
    ...{ ...defaultLimits, connections: 1000 },
    fair: {
      ...{ seats: 16, seatsOfOne: 12, waiting: 800, waitingOfOne: 100, waitMs: 15_000 },
      ...{ ratePerSecond: 50, burst: 100, watches: 800, watchesOfOne: 30, consoles: 8, consolesOfOne: 2 },
    },
  })
})

test('whatever they are set to, everybody gets in, and nobody has all', () => {
  for (const flags of [
    { maxConnections: '64', maxRequestsInflight: '4', maxRequestsWaiting: '64', consolesPerUser: '1' },
    { maxConnections: '100000', maxRequestsInflight: '4096', maxRequestsWaiting: '65536' },
  ]) {
    const { connections, fair } = limits(flags)
    for (const [all, one] of [
      [fair.seats, fair.seatsOfOne],
      [fair.waiting, fair.waitingOfOne],
      [fair.consoles, fair.consolesOfOne],
      [connections, fair.watches],
    ] as const) {
      expect(one).toBeGreaterThanOrEqual(1)
      expect(one).toBeLessThan(all)
    }
  }
})
