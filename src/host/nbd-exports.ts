import type { Clock } from '../lib/clock.ts'
import { PlasmaError } from '../lib/errors.ts'
import type { DiskItem } from './disk-layout.ts'
import { probeNbd } from './nbd-probe.ts'
import type { DiskState } from './ports.ts'
import { Slots } from './slots.ts'

type ExportItem = Extract<DiskItem, { kind: 'export' }>

/** What is known of the exports of one machine. */
export interface KnownExports {
  look(item: ExportItem): DiskState
}

/** For how long an answer of a server is good enough to start a machine on, ms. */
const freshMs = 10_000
/** Servers that don't answer take seconds each: they must not hold up the others. */
const mostProbes = 32

/** What makes an answer that of an item: another server, name or way of use is another question. */
const questionOf = ({ path, readOnly }: ExportItem) => `${readOnly ? 'read' : 'write'} ${path}`

interface Answer {
  readonly question: string
  /** Monotonic ms. */
  readonly at: number
}

/** The exports that machines of this host use as disks: asked for before each start, remembered for a moment. */
export class NbdExports {
  readonly #clock: Clock
  readonly #slots = new Slots(mostProbes)
  /** The last good answers, by uid and name of the disk. */
  readonly #answers = new Map<string, Map<string, Answer>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  of(uid: string): KnownExports {
    return { look: (item) => this.#look(uid, item) }
  }

  #look(uid: string, item: ExportItem): DiskState {
    const { name, path } = item
    const answer = this.#answers.get(uid)?.get(name)
    if (answer?.question !== questionOf(item)) return { name, state: 'absent' }
    const isFresh = this.#clock.elapsed() - answer.at < freshMs
    return { name, path, state: 'ready', ...(!isFresh && { stale: true }) }
  }

  /**
   * Asks the server for the export of a disk. Not while a QEMU may have it open: a server may serve one client only.
   * @throws PlasmaError `DiskUnreachable`, `ExportReadOnly` naming the field; the signal's reason when it is aborted
   */
  async probe(uid: string, item: ExportItem, signal: AbortSignal): Promise<void> {
    const { name, field, nbd, readOnly, path } = item
    this.#answers.get(uid)?.delete(name)
    const clock = this.#clock
    const found = await this.#slots.use(signal, () => probeNbd(nbd, field, { signal, clock }))
    if (found.readOnly && !readOnly)
      throw new PlasmaError('ExportReadOnly', `${field}: ${path} is read-only, and the disk is not`, {
        hint: 'serve it writable, or set readOnly of the disk; it is tried again',
      })
    const answers = this.#answers.get(uid) ?? new Map<string, Answer>()
    this.#answers.set(uid, answers.set(name, { question: questionOf(item), at: clock.elapsed() }))
  }

  forget(uid: string): void {
    this.#answers.delete(uid)
  }
}
