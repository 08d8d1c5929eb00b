import type { Config } from './config.ts'
import { defaultLimits, type Limits } from './server/limits.ts'

export type LimitSettings = Pick<
  Config,
  | 'maxConnections'
  | 'maxRequestsInflight'
  | 'maxRequestsWaiting'
  | 'requestRate'
  | 'watchesPerUser'
  | 'consolesPerUser'
>

/**
 * The limits of an API by its settings: one number each, from which follow the share of one user and what is left to
 * others. The rest is fixed: sizes are Kubernetes' own, and times are what keeps slow senders from holding places.
 */
export function limitsOf(config: LimitSettings): Limits {
  const { maxConnections: connections, maxRequestsInflight: seats, maxRequestsWaiting: waiting } = config
  const { requestRate, watchesPerUser, consolesPerUser } = config
  return {
    ...defaultLimits,
    connections,
    fair: {
      ...defaultLimits.fair,
      ...{ seats, seatsOfOne: Math.floor((seats * 3) / 4) },
      ...{ waiting, waitingOfOne: Math.floor(waiting / 8) },
      ...{ ratePerSecond: requestRate, burst: requestRate * 2 },
      // Each holds a connection, and others must be able to come.
      watches: Math.floor((connections * 4) / 5),
      watchesOfOne: watchesPerUser,
      ...{ consoles: consolesPerUser * 4, consolesOfOne: consolesPerUser },
    },
  }
}
