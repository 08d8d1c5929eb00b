import { sleep } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import { exponential } from '../runtime/backoff.ts'
import { ServerError } from './failure.ts'
import type { Io } from './io.ts'

const leastMs = 250
const mostMs = 5_000

/** What a server that goes away, comes back or is loaded answers with. */
const passing = [
  'NoServer',
  'ConnectionLost',
  'Timeout',
  'ServiceUnavailable',
  'TooManyRequests',
  'ServerTimeout',
]

/** Whether what failed may succeed soon, unchanged. A 502 is what a proxy says whose server restarts. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ServerError && [502, 503, 504].includes(error.status.code ?? 0)) return true
  return error instanceof PlasmaError && passing.includes(error.code)
}

/** Whether the server no longer knows what followed a resourceVersion: one must look anew. */
export const isTooOld = (error: unknown): boolean =>
  error instanceof ServerError && (error.status.code === 410 || ['Expired', 'Gone'].includes(error.code))

/** Waits longer after each failure in a row, 5 s at most. */
export class Patience {
  #failures = 0

  /** To be called after a success. */
  reset(): void {
    this.#failures = 0
  }

  /** @throws the signal's reason when it is aborted meanwhile */
  async wait(io: Pick<Io, 'clock'>, signal: AbortSignal): Promise<void> {
    this.#failures += 1
    await sleep(io.clock, exponential(this.#failures, leastMs, mostMs), signal)
  }
}
