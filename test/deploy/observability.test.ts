import { readFileSync } from 'node:fs'
import { parser } from '@prometheus-io/lezer-promql'
import { describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { allowed } from '../../src/auth/authorize.ts'
import { indexGrants } from '../../src/auth/rules-of.ts'
import { measures } from '../../src/lib/measures.ts'
import { Prometheus } from '../../src/server/prometheus.ts'

const folder = new URL('../../deploy/observability/', import.meta.url)
const text = (name: string) => readFileSync(new URL(name, folder), 'utf8')

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly for?: string
  readonly labels: { readonly severity: string }
  readonly annotations: { readonly summary: string; readonly description: string }
}

const rules = (parse(text('rules.yaml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
)
const dashboard = JSON.parse(text('dashboard.json')) as {
  panels: { id: number; title: string; targets?: { expr: string }[] }[]
}
const panels = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr }) => ({ title, expr })),
)

/** Grafana's variables as it would fill them in. */
const filled = (expr: string) => expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*')

/** Metrics and label names of an expression. @throws Error where it is no PromQL */
function read(expr: string) {
  const [metrics, matched] = [new Set<string>(), new Set<string>()]
  parser.parse(expr).iterate({
    enter: (node) => {
      const word = expr.slice(node.from, node.to)
      if (node.type.isError) throw new Error(`no PromQL at ${node.from}: ${expr}`)
      if (node.name === 'Identifier' && node.node.parent?.name === 'VectorSelector') metrics.add(word)
      if (node.name === 'LabelName') matched.add(word)
    },
  })
  return { metrics: [...metrics], labels: [...matched] }
}

/** What Prometheus itself makes of each scrape. */
const fromPrometheus = new Set(['up'])
const labelsOfScrapes = new Set(['job', 'instance', 'le'])

const registered = new Set(
  new Prometheus().names.flatMap((name) =>
    measures[name as keyof typeof measures].type === 'histogram'
      ? [`${name}_bucket`, `${name}_sum`, `${name}_count`]
      : [name],
  ),
)

describe.each([
  ['rules.yaml', rules.map(({ alert, expr }) => ({ title: alert, expr }))],
  ['dashboard.json', panels],
])('%s', (_file, all) => {
  it.each(all)('$title: $expr', ({ expr }) => {
    const { metrics, labels } = read(filled(expr))
    expect(metrics.length).toBeGreaterThan(0)
    for (const name of metrics) expect(registered.has(name) || fromPrometheus.has(name), name).toBe(true)
    const known = metrics.flatMap((name) => {
      const base = name.replace(/_(bucket|sum|count)$/, '')
      const measure = measures[(name in measures ? name : base) as keyof typeof measures]
      return (measure?.labels ?? []) as readonly string[]
    })
    for (const label of labels) expect(labelsOfScrapes.has(label) || known.includes(label), label).toBe(true)
  })
})

it('every alert has a name of its own, a severity and what to do', () => {
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  for (const { alert, labels, annotations } of rules) {
    expect(['critical', 'warning', 'info'], alert).toContain(labels.severity)
    expect(annotations.summary.length, alert).toBeGreaterThan(10)
    expect(annotations.description.length, alert).toBeGreaterThan(10)
  }
})

it('there is an alert for everything that must not go unseen', () => {
  const names = rules.flatMap(({ expr }) => read(expr).metrics)
  for (const name of [
    ...[
      'plasmavmc_host_state',
      'plasmavmc_brake_held',
      'plasmavmc_lease_age_seconds',
      'plasmavmc_vm_unhealthy',
    ],
    ...['plasmavmc_store_available', 'plasmavmc_apiserver_request_total'],
    'plasmavmc_certificate_expiry_timestamp_seconds',
  ])
    expect(names).toContain(name)
})

it('every metric of ours is on the dashboard or in a rule, but for a few that are there for questions', () => {
  const used = new Set([...rules, ...panels].flatMap(({ expr }) => read(filled(expr)).metrics))
  const base = new Set([...used].map((name) => name.replace(/_(bucket|sum|count)$/, '')))
  const unused = Object.keys(measures).filter((name) => !used.has(name) && !base.has(name))
  expect(unused.sort()).toEqual([
    'nodejs_external_memory_bytes',
    'plasmavmc_controller_active_workers',
    'plasmavmc_controller_max_concurrent_reconciles',
    'plasmavmc_workqueue_adds_total',
    'plasmavmc_workqueue_unfinished_work_seconds',
    'plasmavmc_workqueue_work_duration_seconds',
    'process_max_fds',
    'process_start_time_seconds',
  ])
})

it('finds a metric that is none, and what is no PromQL', () => {
  expect(read('rate(plasmavmc_nothing[5m])').metrics).toEqual(['plasmavmc_nothing'])
  expect(registered.has('plasmavmc_nothing')).toBe(false)
  expect(() => read('sum by (rate(x[5m])')).toThrow('no PromQL')
})

it('panels have ids of their own', () => {
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
})

it('the scrape configuration names a file for the token and the CA', () => {
  const config = parse(text('prometheus.yaml')) as {
    scrape_configs: { authorization: { credentials_file: string }; tls_config: { ca_file: string } }[]
  }
  expect(config.scrape_configs[0]).toMatchObject({
    ...{ scheme: 'https', metrics_path: '/metrics' },
    authorization: { type: 'Bearer', credentials_file: expect.stringMatching(/^\//) },
  })
})

it('Prometheus’ key may read the metrics, and nothing else', () => {
  const text = readFileSync('deploy/observability/metrics-reader.yaml', 'utf8')
  const documents = parseAllDocuments(text).map((one) => one.toJS() as Record<string, unknown>)
  const of = (kind: string) => documents.filter((one) => one['kind'] === kind) as never
  const grants = indexGrants({
    ...{ roles: [], roleBindings: [], clusterRoles: of('ClusterRole') },
    clusterRoleBindings: of('ClusterRoleBinding'),
  })
  const may = (groups: string[], verb: string, target: Parameters<typeof allowed>[2]) =>
    allowed({ name: 'prometheus', groups }, verb, target, grants)
  expect(may(['metrics-readers'], 'get', { path: '/metrics' })).toBe(true)
  expect(may([], 'get', { path: '/metrics' })).toBe(false)
  expect(may(['metrics-readers'], 'get', { path: '/openapi/v2' })).toBe(false)
  const vms = { group: 'plasmavmc.io', resource: 'virtualmachines' }
  expect(may(['metrics-readers'], 'list', vms)).toBe(false)
})
