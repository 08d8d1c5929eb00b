import { uptime } from 'node:os'
import { type Clock, systemClock } from '../lib/clock.ts'

/**
 * Time since this host was booted, by which the guard and the agent compare what they read of each other. It goes on
 * while the host is suspended (CLOCK_BOOTTIME, by /proc/uptime, in steps of 10 ms): a laptop that slept through its
 * lease must not take it for held when it wakes up, as it would by CLOCK_MONOTONIC.
 */
export const hostClock: Clock = {
  ...systemClock,
  elapsed: () => uptime() * 1_000,
}
