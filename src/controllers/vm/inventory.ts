import type { Processes, QemuProcess, Scan } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'

/**
 * Scans of the host's QEMUs, shared: a hundred machines that look at once cost one scan. A launch never relies on a
 * shared scan; `Processes.launch` makes its own.
 */
export class Inventory {
  readonly #processes: Processes
  readonly #clock: Clock
  /** Of the last scans, so that looking one machine up does not mean going through all. */
  readonly #byUid = new WeakMap<Scan, ReadonlyMap<string, readonly QemuProcess[]>>()
  #last: { readonly scan: Scan; readonly beganAt: number } | undefined
  #running: { readonly promise: Promise<Scan>; readonly beganAt: number } | undefined

  constructor(processes: Processes, clock: Clock) {
    this.#processes = processes
    this.#clock = clock
  }

  /** A scan that began at most `maxAgeMs` ago; 0 begins a new one unless one begins right now. */
  async scan(maxAgeMs: number): Promise<Scan> {
    const oldest = this.#clock.elapsed() - maxAgeMs
    if (this.#last && this.#last.beganAt >= oldest) return this.#last.scan
    if (this.#running && this.#running.beganAt >= oldest) return this.#running.promise
    const beganAt = this.#clock.elapsed()
    const promise = this.#processes.scan()
    const running = { promise, beganAt }
    this.#running = running
    try {
      const scan = await promise
      this.#last = { scan, beganAt }
      return scan
    } finally {
      if (this.#running === running) this.#running = undefined
    }
  }

  /** The QEMUs with a uid, by a scan that began at most `maxAgeMs` ago. */
  async of(uid: string, maxAgeMs: number): Promise<readonly QemuProcess[]> {
    return this.in(await this.scan(maxAgeMs), uid)
  }

  /** Whether the last scan, however old, showed a QEMU with a uid. */
  has(uid: string): boolean {
    return this.#last !== undefined && this.in(this.#last.scan, uid).length > 0
  }

  /** The QEMUs with a uid in a scan of this inventory. */
  in(scan: Scan, uid: string): readonly QemuProcess[] {
    let index = this.#byUid.get(scan)
    if (!index) {
      index = Map.groupBy(scan.processes, (process) => process.uid)
      this.#byUid.set(scan, index)
    }
    return index.get(uid) ?? []
  }
}
