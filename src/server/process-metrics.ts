import { readdirSync, readFileSync } from 'node:fs'
import type { Clock } from '../lib/clock.ts'
import type { Meter } from '../lib/measures.ts'

const lagEveryMs = 1_000

/**
 * What every Prometheus client tells of its process, read when it is asked for; only lateness of timers is watched all
 * the time, by one timer a second. (prom-client's own collectors wake up a hundred times a second.)
 * @returns ends it
 */
export function measureProcess(meter: Meter, clock: Clock): () => void {
  const one = (read: () => number) => () => [[{}, read()] as const]
  const startedAt = Math.round(clock.now() / 1000 - process.uptime())
  const lag = watchLag(clock)
  const ends = [
    meter.gauge(
      'process_cpu_seconds_total',
      one(() => {
        const { user, system } = process.cpuUsage()
        return (user + system) / 1e6
      }),
    ),
    meter.gauge(
      'process_resident_memory_bytes',
      one(() => process.memoryUsage.rss()),
    ),
    meter.gauge('process_open_fds', () => [[{}, readdirSync('/proc/self/fd').length]]),
    meter.gauge('process_max_fds', () => [[{}, maxFds()]]),
    meter.gauge(
      'process_start_time_seconds',
      one(() => startedAt),
    ),
    meter.gauge(
      'nodejs_heap_size_used_bytes',
      one(() => process.memoryUsage().heapUsed),
    ),
    meter.gauge(
      'nodejs_external_memory_bytes',
      one(() => process.memoryUsage().external),
    ),
    meter.gauge(
      'nodejs_eventloop_active_seconds_total',
      one(() => performance.eventLoopUtilization().active / 1000),
    ),
    meter.gauge(
      'nodejs_eventloop_lag_max_seconds',
      one(() => lag.take() / 1000),
    ),
  ]
  return () => {
    lag.stop()
    for (const end of ends) end()
  }
}

function watchLag(clock: Clock): { take(): number; stop(): void } {
  let worst = 0
  let cancel = () => {}
  const wait = () => {
    const due = clock.elapsed() + lagEveryMs
    cancel = clock.after(lagEveryMs, () => {
      worst = Math.max(worst, clock.elapsed() - due)
      wait()
    })
  }
  wait()
  return {
    take: () => {
      const taken = Math.max(0, worst)
      worst = 0
      return taken
    },
    stop: () => cancel(),
  }
}

/** The soft limit of this process. @returns NaN, which is left out, where the kernel says `unlimited` */
function maxFds(): number {
  return Number(/^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
}
