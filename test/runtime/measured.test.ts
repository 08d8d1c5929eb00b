import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { jsonLog, silentLog } from '../../src/lib/log.ts'
import { type Outcome, runController } from '../../src/runtime/controller.ts'
import { WorkQueue } from '../../src/runtime/queue.ts'
import { Prometheus } from '../../src/server/prometheus.ts'
import { ApiError } from '../../src/store/errors.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'

let clock: VirtualClock
let queue: WorkQueue
let meter: Prometheus
let stop: AbortController

beforeEach(() => {
  clock = new VirtualClock()
  queue = new WorkQueue(clock)
  meter = new Prometheus({ clock })
  stop = new AbortController()
})

function start(reconcile: (key: string) => Promise<Outcome>, log = silentLog): Promise<void> {
  const running = runController(
    {
      ...{ name: 'test', queue, workers: 1, passTimeoutMs: 60_000, clock, log, meter, reconcile },
    },
    stop.signal,
  )
  onTestFinished(() => stop.abort())
  return running
}

async function value(series: string): Promise<number | undefined> {
  const line = (await meter.text()).split('\n').find((one) => one.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.split(' ').at(-1))
}

const reconciles = (result: string) =>
  value(`plasmavmc_controller_reconcile_total{controller="test",result="${result}"}`)

test('passes are counted by how they ended', async () => {
  const outcomes: (() => Outcome)[] = [
    () => ({ next: 'again' }),
    () => ({ next: 'wait', ms: 10 }),
    () => {
      throw new ApiError('Conflict', 'somebody wrote first')
    },
    () => {
      throw new Error('broken')
    },
    () => ({ next: 'done' }),
  ]
  start(async () => (outcomes.shift() as () => Outcome)())
  queue.add('a')
  await clock.advance(1_000)
  expect(outcomes).toEqual([])
  const results = ['requeue', 'requeue_after', 'conflict', 'error', 'success']
  expect(await Promise.all(results.map(reconciles))).toEqual([1, 1, 1, 1, 1])
  expect(await value('plasmavmc_controller_reconcile_errors_total{controller="test"}')).toBe(1)
  expect(await value('plasmavmc_workqueue_retries_total{name="test"}')).toBe(2)
  expect(await value('plasmavmc_controller_reconcile_time_seconds_count{controller="test"}')).toBe(5)
  expect(await value('plasmavmc_workqueue_adds_total{name="test"}')).toBe(5)
})

test('how long keys wait and are worked on is told apart', async () => {
  const ends: (() => void)[] = []
  start(() => new Promise((resolve) => ends.push(() => resolve({ next: 'done' }))))
  queue.add('a')
  queue.add('b')
  await clock.advance(2_000)
  expect(await value('plasmavmc_workqueue_depth{name="test"}')).toBe(1)
  expect(await value('plasmavmc_controller_active_workers{controller="test"}')).toBe(1)
  expect(await value('plasmavmc_workqueue_longest_running_processor_seconds{name="test"}')).toBe(2)
  ends[0]?.()
  await clock.advance(3_000)
  ends[1]?.()
  await clock.settle()
  expect(await value('plasmavmc_workqueue_queue_duration_seconds_sum{name="test"}')).toBe(2)
  expect(await value('plasmavmc_workqueue_work_duration_seconds_sum{name="test"}')).toBe(5)
  expect(await value('plasmavmc_workqueue_depth{name="test"}')).toBe(0)
  expect(await value('plasmavmc_workqueue_unfinished_work_seconds{name="test"}')).toBe(0)
})

test('a controller that has ended has no gauges', async () => {
  const running = start(async () => ({ next: 'done' }))
  stop.abort()
  await running
  expect(await value('plasmavmc_workqueue_depth{name="test"}')).toBeUndefined()
})

test('whatever is logged within a pass bears its id, however deep; each pass has its own', async () => {
  const lines: Record<string, unknown>[] = []
  const log = jsonLog('debug', { write: (line: string) => void lines.push(JSON.parse(line)) })
  const deep = async (key: string) => {
    await clock.settle()
    log.child({ part: 'deep' }).info('looked', { key: `${key}!` })
  }
  start(async (key) => {
    await deep(key)
    if (key === 'b') throw new Error('broken')
    return { next: 'done' }
  }, log)
  queue.add('a')
  queue.add('b')
  await clock.settle()
  await expect.poll(() => lines.length).toBeGreaterThanOrEqual(5)
  stop.abort()
  log.info('outside')
  const told = (msg: string) => lines.filter((line) => line['msg'] === msg)
  expect(told('looked')).toMatchObject([
    { controller: 'test', key: 'a!', part: 'deep', reconcileID: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    { controller: 'test', key: 'b!' },
  ])
  expect(told('pass failed')).toMatchObject([{ key: 'b', reconcileID: told('looked')[1]?.['reconcileID'] }])
  expect(told('pass ended')).toMatchObject([
    { key: 'a', result: 'success', reconcileID: told('looked')[0]?.['reconcileID'] },
    { key: 'b', result: 'error' },
  ])
  expect(told('looked')[0]?.['reconcileID']).not.toBe(told('looked')[1]?.['reconcileID'])
  expect(told('outside')[0]).not.toHaveProperty('reconcileID')
})
