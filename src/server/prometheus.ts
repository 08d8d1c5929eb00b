import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import { type Clock, systemClock } from '../lib/clock.ts'
import { withDeadline } from '../lib/deadline.ts'
import { messageOf } from '../lib/errors.ts'
import { type Log, silentLog } from '../lib/log.ts'
import {
  type CounterName,
  type GaugeName,
  type HistogramName,
  type LabelsOf,
  type MeasureName,
  type Meter,
  measures,
  type Readings,
} from '../lib/measures.ts'

/** Most series of one measure; more would be a mistake of ours, and must cost no memory. */
const mostSeries = 2_000
/** A gauge that is not read by then is left out, ms: Prometheus waits 10 s unless told. */
const readMs = 3_000

type Labels = Readonly<Record<string, string>>
type Read = () => Iterable<readonly [Labels, number]> | Promise<Iterable<readonly [Labels, number]>>

export interface PrometheusOptions {
  readonly clock?: Clock
  /** Told of gauges that can't be read. */
  readonly log?: Log
}

/** Everything in `measures`, counted in this process and given in Prometheus' text format. */
export class Prometheus implements Meter {
  readonly #registry = new Registry()
  readonly #counters = new Map<string, Counter>()
  readonly #histograms = new Map<string, Histogram>()
  readonly #reads = new Map<string, Set<Read>>()
  /** Label values that were seen, joined, by measure. */
  readonly #series = new Map<string, Set<string>>()
  readonly #clock: Clock
  readonly #log: Log

  constructor({ clock = systemClock, log = silentLog }: PrometheusOptions = {}) {
    this.#clock = clock
    this.#log = log
    for (const name of Object.keys(measures) as MeasureName[]) this.#make(name)
  }

  /** Of `text`. */
  readonly contentType = 'text/plain; version=0.0.4; charset=utf-8'

  /** Names, types and label names of all there is, as registered. */
  get names(): readonly string[] {
    return this.#registry.getMetricsAsArray().map(({ name }) => name)
  }

  add<N extends CounterName>(name: N, labels: LabelsOf<N>, by = 1): void {
    if (this.#hasRoom(name, labels) && by >= 0) this.#counters.get(name)?.inc(labels as Labels, by)
  }

  observe<N extends HistogramName>(name: N, labels: LabelsOf<N>, value: number): void {
    if (this.#hasRoom(name, labels) && Number.isFinite(value))
      this.#histograms.get(name)?.observe(labels as Labels, value)
  }

  gauge<N extends GaugeName>(name: N, read: () => Readings<N> | Promise<Readings<N>>): () => void {
    const reads = this.#reads.get(name)
    // Its own, so that the same function may be there twice.
    const own = (() => read()) as Read
    reads?.add(own)
    return () => reads?.delete(own)
  }

  /** All series. Never rejects. */
  text(): Promise<string> {
    return this.#registry.metrics()
  }

  #make(name: MeasureName): void {
    const { type, help, labels, buckets, shown } = measures[name] as {
      readonly type: string
      readonly help: string
      readonly labels: readonly string[]
      readonly buckets?: readonly number[]
      readonly shown?: 'counter'
    }
    const base = { name, help, labelNames: [...labels], registers: [this.#registry] }
    this.#series.set(name, new Set())
    if (type === 'counter') this.#counters.set(name, new Counter(base))
    else if (type === 'histogram')
      this.#histograms.set(name, new Histogram({ ...base, buckets: [...(buckets ?? [])] }))
    else this.#makeRead(name, base, shown === 'counter')
  }

  #makeRead(
    name: string,
    base: { name: string; help: string; labelNames: string[]; registers: Registry[] },
    grows: boolean,
  ): void {
    const reads = new Set<Read>()
    this.#reads.set(name, reads)
    const collect = async () => {
      const all = await Promise.all([...reads].map((read) => this.#read(name, read)))
      metric.reset()
      for (const [labels, value] of all.flat().slice(0, mostSeries)) metric.inc(labels, value)
      // Without a label it would be shown as 0 where nobody reads it.
      if (all.flat().length === 0 && base.labelNames.length === 0) metric.remove()
    }
    const metric = grows ? new Counter({ ...base, collect }) : new Gauge({ ...base, collect })
  }

  async #read(name: string, read: Read): Promise<readonly (readonly [Labels, number])[]> {
    try {
      const work = async () => [...(await read())]
      const found = await withDeadline(readMs, `reading ${name}`, work, { clock: this.#clock })
      return found.filter(([, value]) => Number.isFinite(value))
    } catch (error) {
      this.#log.debug('a gauge was not read', { name, message: messageOf(error) })
      return []
    }
  }

  #hasRoom(name: MeasureName, labels: Labels): boolean {
    const series = this.#series.get(name)
    if (!series) return false
    let key = ''
    for (const label in labels) key += `${labels[label]}\n`
    if (series.has(key)) return true
    if (series.size < mostSeries) return series.add(key) !== undefined
    if (name !== 'plasmavmc_metrics_series_dropped_total')
      this.add('plasmavmc_metrics_series_dropped_total', { metric: name })
    return false
  }
}
