import { X509Certificate } from 'node:crypto'
import type { Config } from './config.ts'
import { systemClock } from './lib/clock.ts'
import { messageOf, PlasmaError } from './lib/errors.ts'
import type { Log } from './lib/log.ts'
import type { Meter } from './lib/measures.ts'
import type { ServerDeps } from './server/deps.ts'
import { listenForMetrics } from './server/metrics-listen.ts'
import type { Pki } from './server/pki.ts'
import { measureProcess } from './server/process-metrics.ts'
import { Prometheus } from './server/prometheus.ts'
import { expireEvents } from './store/event-expiry.ts'
import { version } from './version.ts'
import type { GuardHandle } from './wire-guard-watch.ts'
import type { Term } from './wire-leader.ts'

export interface ServerMetrics {
  readonly prometheus: Prometheus
  readonly close: () => Promise<void>
}

/**
 * What a server measures, shown at /metrics of its API, and where it is told to at a port of its own, with its health.
 * @throws PlasmaError `MetricsListenFailed`
 */
export async function startMetrics(
  config: Pick<Config, 'metricsListen'>,
  ready: ServerDeps['ready'],
  log: Log,
): Promise<ServerMetrics> {
  const prometheus = new Prometheus({ clock: systemClock, log })
  const stopProcess = measureProcess(prometheus, systemClock)
  prometheus.gauge('plasmavmc_build_info', () => [[{ version, nodejs: process.version }, 1]])
  const { metricsListen: at } = config
  try {
    const listener = at && (await listenForMetrics(prometheus, { ...at, ready }))
    if (at)
      log.info('metrics and health are served without a signature', { host: at.host, port: listener?.port })
    return {
      prometheus,
      close: async () => {
        stopProcess()
        await listener?.close()
      },
    }
  } catch (error) {
    stopProcess()
    throw new PlasmaError(
      'MetricsListenFailed',
      `--metrics-listen: ${at?.host}:${at?.port}: ${messageOf(error)}`,
      {
        hint: 'choose another address, such as --metrics-listen 127.0.0.1:9443, or leave it out',
        cause: error,
      },
    )
  }
}

/** Whether the store answers, asked when the metrics are read. */
export function measureStore(trouble: () => Promise<string | undefined>, meter: Meter): void {
  meter.gauge('plasmavmc_store_available', async () => [[{}, (await trouble()) === undefined ? 1 : 0]])
}

export function measureCertificates({ ca, cert }: Pick<Pki, 'ca' | 'cert'>, meter: Meter): void {
  const expiries = [
    [{ certificate: 'ca' }, expiryOf(ca)],
    [{ certificate: 'server' }, expiryOf(cert)],
  ] as const
  meter.gauge('plasmavmc_certificate_expiry_timestamp_seconds', () => expiries)
}

const expiryOf = (pem: string) => Date.parse(new X509Certificate(pem).validTo) / 1000

/** This host's lease, as its guard tells. A host alone has none, and shows none. */
export function measureLease(lease: GuardHandle['lease'], deadlineMs: number, meter: Meter): void {
  meter.gauge('plasmavmc_lease_held', () => {
    const now = lease()
    return now ? [[{}, now.held ? 1 : 0]] : []
  })
  meter.gauge('plasmavmc_lease_age_seconds', () => {
    const age = lease()?.ageMs
    return age === undefined ? [] : [[{}, age / 1000]]
  })
  meter.gauge('plasmavmc_lease_deadline_seconds', () => [[{}, deadlineMs / 1000]])
}

/**
 * Parts of a leader's term: what only one server of a store has to do beside what it decides.
 * @param keeps whether the store is ours to keep; Kubernetes lets events go by itself
 */
export function housekeeping(
  log: Log,
  meter: Meter,
  keeps: boolean,
): readonly ((term: Term) => Promise<unknown>)[] {
  let leads = false
  meter.gauge('plasmavmc_leader_leading_status', () => [[{}, leads ? 1 : 0]])
  const told = ({ signal }: Term) => {
    leads = true
    meter.add('plasmavmc_leader_terms_total', {})
    return new Promise<void>((resolve) => {
      const end = () => {
        leads = false
        resolve()
      }
      signal.addEventListener('abort', end, { once: true })
      if (signal.aborted) end()
    })
  }
  const expire = ({ objects, signal }: Term) => expireEvents({ objects, clock: systemClock, log }, signal)
  return keeps ? [told, expire] : [told]
}
