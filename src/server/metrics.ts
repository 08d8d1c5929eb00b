/** Label values of one request; every one is from a fixed set, so the number of series is bounded. */
export interface RequestLabels {
  readonly verb: string
  /** Plural of the kind, or empty for other paths. */
  readonly resource: string
  readonly subresource: string
  readonly code: number
}

/** The server's own counters, in Prometheus' text format 0.0.4. */
export class Metrics {
  readonly #requests = new Map<string, number>()
  #watches = 0
  #consoles = 0

  countRequest({ verb, resource, subresource, code }: RequestLabels): void {
    const labels = `verb="${verb}",resource="${resource}",subresource="${subresource}",code="${code}"`
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1)
  }

  /** Counts a watch that begins; the returned function counts its end, once. */
  watchBegins(): () => void {
    this.#watches += 1
    return once(() => {
      this.#watches -= 1
    })
  }

  /** Counts a console client that joins; the returned function counts its leaving, once. */
  consoleBegins(): () => void {
    this.#consoles += 1
    return once(() => {
      this.#consoles -= 1
    })
  }

  /** All series as text. `residentBytes` is the process's memory, `uptimeSeconds` its age. */
  render(process: { readonly residentBytes: number; readonly uptimeSeconds: number }): string {
    const requests = [...this.#requests].map(([labels, count]) => [`{${labels}}`, count] as const)
    return [
      series('plasmavmc_api_requests_total', 'counter', 'Requests answered.', requests),
      series('plasmavmc_api_watches', 'gauge', 'Watches under way.', [['', this.#watches]]),
      series('plasmavmc_api_consoles', 'gauge', 'Console clients.', [['', this.#consoles]]),
      series('process_resident_memory_bytes', 'gauge', 'Resident memory.', [['', process.residentBytes]]),
      series('process_uptime_seconds', 'gauge', 'Age of the process.', [['', process.uptimeSeconds]]),
    ].join('')
  }
}

function once(fn: () => void): () => void {
  let done = false
  return () => {
    if (!done) fn()
    done = true
  }
}

function series(
  name: string,
  type: 'counter' | 'gauge',
  help: string,
  values: readonly (readonly [labels: string, value: number])[],
): string {
  const lines = values.map(([labels, value]) => `${name}${labels} ${value}\n`)
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`
}
