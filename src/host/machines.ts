import type { Clock } from '../lib/clock.ts'
import { messageOf, PlasmaError } from '../lib/errors.ts'
import type { Log } from '../lib/log.ts'
import { type Meter, unmetered } from '../lib/measures.ts'
import type { CallOf, CommandName, ResultOf } from '../qmp/commands.ts'
import { connectQmp } from '../qmp/connect.ts'
import { CommandError, Interrupted, QmpTimeout } from '../qmp/errors.ts'
import type { ExecuteOptions, QmpSession } from '../qmp/session.ts'
import { vmPaths } from './paths.ts'
import type { MachineAnswer, MachineChange, Machines } from './ports.ts'

export interface QmpMachinesOptions {
  readonly runDir: string
  readonly clock: Clock
  readonly log: Log
  /** Measures nothing unless given. */
  readonly meter?: Meter
  /** For one query-status, ms. */
  readonly statusTimeoutMs?: number
  readonly handshakeMs?: number
  /** How long a connect waits for a QEMU that may only just have been started, ms. */
  readonly waitMs?: number
}

/** QMP of this host's machines: one kept session a machine, connected on first use. QEMU's socket serves one client. */
export class QmpMachines implements Machines {
  readonly #options: QmpMachinesOptions
  readonly #sessions = new Map<string, Promise<QmpSession>>()
  /** Ends a connect under way. */
  readonly #connecting = new Map<string, AbortController>()
  /** Machines that were reached since their launch: their socket is there, or they are dying; neither is waited for. */
  readonly #met = new Set<string>()
  readonly #queries = new Map<string, Promise<MachineAnswer>>()
  readonly #listeners = new Set<(change: MachineChange) => void>()
  #closed = false

  constructor(options: QmpMachinesOptions) {
    this.#options = options
  }

  status(uid: string): Promise<MachineAnswer> {
    const running = this.#queries.get(uid)
    if (running) return running
    const query = this.#ask(uid).finally(() => this.#queries.delete(uid))
    this.#queries.set(uid, query)
    return query
  }

  async execute<N extends CommandName>(
    uid: string,
    command: N,
    ...call: CallOf<N, ExecuteOptions>
  ): Promise<ResultOf<N>> {
    const session = await this.#session(uid)
    try {
      return await this.#send(session, command, ...call)
    } catch (error) {
      // QEMU may close before it has answered quit: it was obeyed all the same. `Closed` means that nothing was sent.
      if (command === 'quit' && error instanceof Interrupted && error.code === 'Interrupted')
        return {} as ResultOf<N>
      throw error
    }
  }

  onChange(listener: (change: MachineChange) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  forget(uid: string): void {
    const session = this.#sessions.get(uid)
    this.#sessions.delete(uid)
    this.#met.delete(uid)
    this.#connecting.get(uid)?.abort(new Interrupted('Interrupted', 'the machine was given up'))
    session?.then(
      (open) => open.close(),
      () => {},
    )
  }

  /** For good: a connection made for whoever comes later would keep the process from ending. */
  async close(): Promise<void> {
    this.#closed = true
    for (const uid of [...this.#sessions.keys()]) this.forget(uid)
  }

  async #ask(uid: string): Promise<MachineAnswer> {
    try {
      const session = await this.#session(uid)
      const timeoutMs = this.#options.statusTimeoutMs ?? 3_000
      const answer = await this.#send(session, 'query-status', undefined, { timeoutMs })
      return { state: 'answered', ...answer }
    } catch (error) {
      return { state: 'unreachable', why: whyOf(error), message: messageOf(error) }
    }
  }

  async #send<N extends CommandName>(
    session: QmpSession,
    command: N,
    ...call: CallOf<N, ExecuteOptions>
  ): Promise<ResultOf<N>> {
    const { clock, meter = unmetered } = this.#options
    const sentAt = clock.elapsed()
    try {
      return await session.execute(command, ...call)
    } catch (error) {
      meter.add('plasmavmc_qmp_command_errors_total', { command, reason: reasonOf(error) })
      throw error
    } finally {
      const seconds = (clock.elapsed() - sentAt) / 1000
      meter.observe('plasmavmc_qmp_command_duration_seconds', { command }, seconds)
    }
  }

  #session(uid: string): Promise<QmpSession> {
    if (this.#closed) return Promise.reject(new Interrupted('Closed', 'the server is stopping'))
    const known = this.#sessions.get(uid)
    if (known) return known
    const { runDir, clock, handshakeMs = 3_000 } = this.#options
    const waitMs = this.#met.has(uid) ? 0 : (this.#options.waitMs ?? 1_000)
    const giveUp = new AbortController()
    const { signal } = giveUp
    const opening = connectQmp(vmPaths(runDir, uid).qmp, { clock, waitMs, handshakeMs, signal }).finally(
      () => {
        if (this.#connecting.get(uid) === giveUp) this.#connecting.delete(uid)
      },
    )
    this.#connecting.set(uid, giveUp)
    this.#sessions.set(uid, opening)
    opening.then(
      (session) => this.#opened(uid, opening, session),
      () => this.#dropped(uid, opening),
    )
    return opening
  }

  #opened(uid: string, opening: Promise<QmpSession>, session: QmpSession): void {
    if (this.#sessions.get(uid) === opening) this.#met.add(uid)
    session.onEvent((event) => this.#tell({ uid, type: 'event', event }))
    void session.closed.then(() => {
      if (this.#dropped(uid, opening)) this.#tell({ uid, type: 'closed' })
    })
  }

  /** @returns whether it was the current session of the machine */
  #dropped(uid: string, opening: Promise<QmpSession>): boolean {
    if (this.#sessions.get(uid) !== opening) return false
    this.#sessions.delete(uid)
    return true
  }

  #tell(change: MachineChange): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(change)
      } catch (error) {
        this.#options.log.error('listener of machine changes failed', { uid: change.uid, err: error })
      }
    }
  }
}

/** One of few words, whatever QEMU says. */
function reasonOf(error: unknown): string {
  if (error instanceof CommandError) return 'refused'
  if (error instanceof QmpTimeout) return 'timeout'
  return error instanceof Interrupted ? 'interrupted' : 'error'
}

function whyOf(error: unknown): Extract<MachineAnswer, { state: 'unreachable' }>['why'] {
  if (error instanceof QmpTimeout) return 'timeout'
  if (error instanceof Interrupted) return 'closed'
  const code = error instanceof PlasmaError ? error.code : ''
  if (code === 'busy' || code === 'Busy') return 'timeout'
  return code === 'no-socket' || code === 'refused' ? code : 'error'
}
