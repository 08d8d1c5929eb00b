import type { QemuProcess } from '../../src/host/ports.ts'
import { Procfs } from '../../src/host/procfs.ts'
import { scanProcesses } from '../../src/host/scan.ts'

const everyMs = 100

/**
 * Looks at /proc all the time: what it sees twice at once it keeps, whoever started it. A look costs some ms; twins
 * between two looks are noticed by the fakes themselves.
 */
export class Watcher {
  readonly #proc = new Procfs()
  readonly #bootId = this.#proc.bootId()
  readonly #uids: () => ReadonlySet<string>
  readonly #timer: NodeJS.Timeout
  /** Uids with the pids that lived at once. */
  readonly twins: string[] = []

  constructor(uids: () => ReadonlySet<string>) {
    this.#uids = uids
    this.#timer = setInterval(() => this.look(), everyMs)
  }

  /** The live QEMUs of the watched machines. */
  look(): readonly QemuProcess[] {
    const { processes } = scanProcesses(this.#proc, this.#bootId)
    const ours = processes.filter(({ uid }) => this.#uids().has(uid))
    for (const [uid, found] of Map.groupBy(ours, (process) => process.uid))
      if (found.length > 1) this.twins.push(`${uid}: ${found.map(({ pid }) => pid).join(', ')}`)
    return ours
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
