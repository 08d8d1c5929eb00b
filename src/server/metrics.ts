import type { Meter } from '../lib/measures.ts'
import { once } from '../lib/once.ts'

/** Label values of one request; every one is from a fixed set, so the number of series is bounded. */
export interface RequestLabels {
  readonly verb: string
  /** Plural of the kind, or empty for other paths. */
  readonly resource: string
  readonly subresource: string
  readonly code: number
}

/** @param ms from its arrival to the head of its answer; a watch has no end that tells of the server's speed */
export function countRequest(
  meter: Meter,
  { verb, resource, subresource, code }: RequestLabels,
  ms: number,
): void {
  meter.add('plasmavmc_apiserver_request_total', { verb, resource, subresource, code: String(code) })
  if (verb === 'watch') return
  const labels = { verb, resource, subresource }
  meter.observe('plasmavmc_apiserver_request_duration_seconds', labels, ms / 1000)
}

/** What the server measures of its own work. */
export class Metrics {
  readonly #meter: Meter
  readonly #longRunning = new Map<
    string,
    { readonly verb: string; readonly resource: string; count: number }
  >()
  #inFlight = 0

  constructor(meter: Meter) {
    this.#meter = meter
    meter.gauge('plasmavmc_apiserver_current_inflight_requests', () => [[{}, this.#inFlight]])
    meter.gauge('plasmavmc_apiserver_longrunning_requests', () =>
      [...this.#longRunning.values()].map(({ count, ...labels }) => [labels, count] as const),
    )
  }

  /** Counts a request that begins; the returned function counts its end, once. */
  requestBegins(): () => void {
    this.#inFlight += 1
    return once(() => {
      this.#inFlight -= 1
    })
  }

  /** As the function of that name. */
  countRequest(labels: RequestLabels, ms: number): void {
    countRequest(this.#meter, labels, ms)
  }

  /** Counts a request for a console or display; how long that takes tells of people, so it is not timed. */
  countConnect({ code, ...labels }: Omit<RequestLabels, 'verb'>): void {
    this.#meter.add('plasmavmc_apiserver_request_total', { verb: 'connect', ...labels, code: String(code) })
  }

  /** Counts a watch that begins; the returned function counts its end, once. */
  watchBegins(resource: string): () => void {
    return this.#begins('watch', resource)
  }

  /** A watch was ended because its client was too slow. */
  watchCut(resource: string): void {
    this.#meter.add('plasmavmc_apiserver_watches_cut_total', { resource })
  }

  /** Counts a client of a console or display that joins; the returned function counts its leaving, once. */
  consoleBegins(): () => void {
    return this.#begins('connect', 'virtualmachines')
  }

  #begins(verb: string, resource: string): () => void {
    const key = `${verb} ${resource}`
    const entry = this.#longRunning.get(key) ?? { verb, resource, count: 0 }
    this.#longRunning.set(key, entry)
    entry.count += 1
    return once(() => {
      entry.count -= 1
    })
  }
}
