import { expect, onTestFinished, test } from 'vitest'
import { measures } from '../../src/lib/measures.ts'
import type { Check, ServerDeps } from '../../src/server/deps.ts'
import { listenForMetrics } from '../../src/server/metrics-listen.ts'
import { measureProcess } from '../../src/server/process-metrics.ts'
import { Prometheus } from '../../src/server/prometheus.ts'
import { VirtualClock } from '../fakes/virtual-clock.ts'
import { lab, machine, machines } from './fixture.ts'

const lines = async (metrics: Prometheus, name: string) =>
  (await metrics.text()).split('\n').filter((line) => line.startsWith(name))

test('every measure is registered, described and of its type', async () => {
  const metrics = new Prometheus()
  const text = await metrics.text()
  for (const [name, { help }] of Object.entries(measures)) expect(text).toContain(`# HELP ${name} ${help}\n`)
  expect([...metrics.names].sort()).toEqual(Object.keys(measures).sort())
  expect(text).toContain('# TYPE process_cpu_seconds_total counter\n')
  expect(text).toContain('# TYPE plasmavmc_qmp_command_duration_seconds histogram\n')
})

test('names are those that Prometheus recommends', () => {
  const wrong = Object.entries(measures).filter(([name, { type }]) => {
    if (!/^(plasmavmc|process|nodejs)_[a-z0-9_]+$/.test(name)) return true
    if (type === 'counter') return !name.endsWith('_total')
    return type === 'histogram' && !name.endsWith('_seconds')
  })
  expect(wrong).toEqual([])
})

test('no label names a machine, but for one that says which are in trouble', () => {
  const labels = Object.entries(measures).flatMap(([name, { labels }]) =>
    labels.some((label) => ['uid', 'vm', 'key'].includes(label)) ? [name] : [],
  )
  expect(labels).toEqual([])
})

test('a mistake that makes new series without end is cut, and told', async () => {
  const metrics = new Prometheus()
  for (let i = 0; i < 2_500; i += 1) metrics.add('plasmavmc_vm_exits_total', { reason: `r${i}` })
  expect(await lines(metrics, 'plasmavmc_vm_exits_total{')).toHaveLength(2_000)
  expect(await lines(metrics, 'plasmavmc_metrics_series_dropped_total{')).toEqual([
    'plasmavmc_metrics_series_dropped_total{metric="plasmavmc_vm_exits_total"} 500',
  ])
})

test('gauges are read when they are asked for, several as one; one that fails or hangs is left out', async () => {
  const clock = new VirtualClock()
  const metrics = new Prometheus({ clock })
  let depth = 1
  metrics.gauge('plasmavmc_workqueue_depth', () => [[{ name: 'a' }, depth]])
  const stop = metrics.gauge('plasmavmc_workqueue_depth', () => [[{ name: 'b' }, 5]])
  metrics.gauge('plasmavmc_workqueue_depth', () => {
    throw new Error('gone')
  })
  metrics.gauge('plasmavmc_store_available', () => new Promise(() => {}))
  depth = 7
  const read = lines(metrics, 'plasmavmc_workqueue_depth{')
  await clock.advance(3_000)
  expect(await read).toEqual([
    'plasmavmc_workqueue_depth{name="a"} 7',
    'plasmavmc_workqueue_depth{name="b"} 5',
  ])
  stop()
  const text = metrics.text()
  await clock.advance(3_000)
  expect(await text).not.toContain('name="b"')
  expect(await text).not.toMatch(/^plasmavmc_store_available /m)
})

test('values of labels can not break a line', async () => {
  const metrics = new Prometheus()
  metrics.add('plasmavmc_vm_exits_total', { reason: 'a"b\\c\nd' })
  expect(await lines(metrics, 'plasmavmc_vm_exits_total{')).toEqual([
    'plasmavmc_vm_exits_total{reason="a\\"b\\\\c\\nd"} 1',
  ])
})

test('the process tells what it uses, and how late its timers are', async () => {
  const clock = new VirtualClock()
  const metrics = new Prometheus({ clock })
  const stop = measureProcess(metrics, clock)
  const value = async (name: string) => Number((await lines(metrics, `${name} `))[0]?.split(' ')[1])
  expect(await value('process_resident_memory_bytes')).toBeGreaterThan(10_000_000)
  expect(await value('process_cpu_seconds_total')).toBeGreaterThan(0.01)
  expect(await value('process_open_fds')).toBeGreaterThan(3)
  expect(await value('process_max_fds')).toBeGreaterThan(100)
  expect(await value('nodejs_eventloop_lag_max_seconds')).toBe(0)
  stop()
  expect(clock.pending).toBe(0)
})

test('requests are counted and timed by what they were, and under way only meanwhile', async () => {
  const server = await lab()
  await server.call('POST', machines, machine('a'))
  await server.call('GET', `${machines}/nobody`)
  await server.call('GET', '/nowhere')
  await server.call('GET', machines, undefined, { authorization: 'wrong' })
  const { text, headers } = await server.call('GET', '/metrics')
  expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
  const counted = (labels: string) => text.includes(`plasmavmc_apiserver_request_total{${labels}} 1\n`)
  expect(counted('verb="create",resource="virtualmachines",subresource="",code="201"')).toBe(true)
  expect(counted('verb="get",resource="virtualmachines",subresource="",code="404"')).toBe(true)
  expect(counted('verb="get",resource="",subresource="",code="404"')).toBe(true)
  expect(counted('verb="",resource="",subresource="",code="401"')).toBe(true)
  expect(text).toContain(
    'plasmavmc_apiserver_request_duration_seconds_count{verb="create",resource="virtualmachines",subresource=""} 1\n',
  )
  // The one that asks.
  expect(text).toContain('plasmavmc_apiserver_current_inflight_requests 1\n')
})

test('who may not get /metrics does not', async () => {
  const server = await lab()
  const asked = (authorization: string) => server.call('GET', '/metrics', undefined, { authorization })
  expect((await asked('')).code).toBe(401)
  expect(await asked('Bearer guest')).toMatchObject({ code: 403, json: { reason: 'Forbidden' } })
})

async function ownPort(metrics: Prometheus, ready: ServerDeps['ready'] = () => []) {
  const listener = await listenForMetrics(metrics, { host: '127.0.0.1', port: 0, ready })
  onTestFinished(() => listener.close())
  return (path: string, method = 'GET') =>
    fetch(`http://127.0.0.1:${listener.port}${path}`, { method, signal: AbortSignal.timeout(5_000) })
}

test('a port of their own shows metrics and health, and nothing else', async () => {
  const metrics = new Prometheus()
  metrics.add('plasmavmc_vm_exits_total', { reason: 'Crashed' })
  const ask = await ownPort(metrics)
  const answer = await ask('/metrics')
  expect(answer.headers.get('content-type')).toBe(metrics.contentType)
  expect(await answer.text()).toContain('plasmavmc_vm_exits_total{reason="Crashed"} 1\n')
  for (const path of ['/api', '/', '/livez/x', '/version']) expect((await ask(path)).status, path).toBe(404)
  for (const path of ['/metrics', '/livez', '/readyz'])
    expect((await ask(path, 'POST')).status, path).toBe(405)
})

test('health is told there as the API tells it; a server whose store is away lives on', async () => {
  let store: Check = { name: 'store', ok: true }
  let asked = 0
  const ask = await ownPort(new Prometheus(), async () => {
    asked += 1
    return [store, { name: 'machines', ok: true }]
  })
  const told = async (path: string) => {
    const answer = await ask(path)
    return [answer.status, await answer.text()]
  }
  expect(await told('/readyz')).toEqual([200, 'ok'])
  expect(await told('/readyz?verbose')).toEqual([
    ...[200, '[+]ping ok\n[+]store ok\n[+]machines ok\nreadyz check passed\n'],
  ])
  store = { name: 'store', ok: false, message: 'etcd does not answer' }
  expect(await told('/readyz')).toEqual([
    503,
    '[+]ping ok\n[-]store failed: etcd does not answer\n[+]machines ok\nreadyz check failed\n',
  ])
  const before = asked
  for (const path of ['/livez', '/healthz']) expect(await told(path)).toEqual([200, 'ok'])
  expect(await told('/livez?verbose')).toEqual([200, '[+]ping ok\nlivez check passed\n'])
  expect(asked).toBe(before)
})
