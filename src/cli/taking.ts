import { PlasmaError } from '../lib/errors.ts'
import type { Client } from './client.ts'
import { isServerError } from './failure.ts'
import { counted, keyOf, placeOf } from './hosts.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { requireTaken } from './lease-taken.ts'
import { progressLine } from './progress.ts'
import type { ListView, ObjectView } from './targets.ts'

export interface TakingOptions {
  readonly client: Client
  readonly host: string
  /** Name of the evidence. */
  readonly evidence: string
  readonly epoch: number
  /** Those that were placed on the host. */
  readonly machines: readonly ObjectView[]
  readonly timeoutMs: number
  readonly say: (text: string) => void
  readonly io: Io
}

const vmKind = kindOf('vm')
const evidenceKind = kindOf('fenceevidences')

/** Reasons with which the leader marks a machine of a lost host. */
const markedWith = new Set(['HostLost', 'StorageLost'])

/** What becomes of a machine of a fenced host: a text once that is settled, else what it waits for. */
export function takenState(host: string, vm: ObjectView | undefined): { done: boolean; text: string } {
  if (vm === undefined) return { done: true, text: 'is deleted' }
  const place = placeOf(vm)
  if (place !== undefined && place !== host) return { done: true, text: `goes to ${place}` }
  if (place === undefined) {
    const scheduled = vm.status?.conditions?.find(({ type }) => type === 'Scheduled')
    if (scheduled?.status === 'False')
      return { done: true, text: `is taken, and waits for a host: ${scheduled.message}` }
    return { done: false, text: 'is taken, and waits for a host' }
  }
  return { done: false, text: `is still placed on ${host}` }
}

/** Whether a machine is one that its lost host keeps whatever a person says of that host. */
export function keptBy(vm: ObjectView): string | undefined {
  const { reason, message } = vm.status ?? {}
  if (reason === 'StorageLost') return message ?? reason
  const { onHostLoss = 'Manual' } = (vm.spec?.['recovery'] ?? {}) as { onHostLoss?: string }
  const runs = vm.status?.['process'] ?? vm.status?.['launch']
  return onHostLoss === 'Failover' || runs === undefined
    ? undefined
    : 'it waits for its host, as spec.recovery.onHostLoss is Manual'
}

/** Follows the machines of a fenced host until each was taken and has a host, or is one that stays. */
export class Taking {
  readonly #options: TakingOptions
  readonly #waiting: Map<string, string>
  #progress: ReturnType<typeof progressLine>

  constructor(options: TakingOptions) {
    this.#options = options
    this.#waiting = new Map(options.machines.map((vm) => [keyOf(vm), 'is looked at']))
    this.#progress = progressLine(options.io)
  }

  /** @throws PlasmaError `ClaimRefused`, `NotTaken` */
  async run(): Promise<void> {
    const { io, timeoutMs, evidence } = this.#options
    const late = new AbortController()
    const cancel = io.clock.after(timeoutMs, () => late.abort(new Error('deadline')))
    const signal = AbortSignal.any([late.signal, io.signal])
    try {
      await this.#untilTaken(signal)
      await this.#follow(signal)
    } catch (error) {
      this.#progress.end()
      const ours = error instanceof PlasmaError && error.code === 'ClaimRefused'
      if (!late.signal.aborted && !ours)
        io.stderr.write(
          `stopped waiting: fenceevidence ${evidence} is stored, and what follows from it goes on without this command\n`,
        )
      if (!late.signal.aborted) throw error
      throw this.#late()
    } finally {
      cancel()
      this.#progress.end()
    }
  }

  #late(): PlasmaError {
    const { host, evidence, timeoutMs } = this.#options
    const list = [...this.#waiting].map(([key, text]) => `\n  ${key} ${text}`)
    const what = list.length > 0 ? list.join('') : ' its lease was not taken'
    return new PlasmaError(
      'NotTaken',
      `fenceevidence ${evidence} is stored, but after ${timeoutMs / 1000} s not all is done:${what}`,
      {
        hint: `a server with the role controller does it: see condition Fenced in 'plasmavmc describe host ${host}'`,
      },
    )
  }

  /** The leader takes the lease on the stored word, or refuses it where the host is back. */
  async #untilTaken(signal: AbortSignal): Promise<void> {
    const { client, host, epoch } = this.#options
    this.#progress.show(`waiting for the leader to take the lease of ${host}`)
    await requireTaken({ client, host, signal, epoch, refused: () => this.#refused() })
    this.#progress.end()
  }

  /** @throws PlasmaError where the evidence was taken back */
  async #refused(): Promise<void> {
    const { client, host, evidence } = this.#options
    try {
      await client.json('GET', pathOf(evidenceKind, undefined, evidence))
    } catch (error) {
      if (!isServerError(error, 'NotFound')) throw error
      throw new PlasmaError(
        'ClaimRefused',
        `the leader did not take your word for it: ${host} renewed its lease after that`,
        { hint: `nothing was moved; see 'plasmavmc describe host ${host}', switch it off, and repeat` },
      )
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { client } = this.#options
    this.#progress = progressLine(this.#options.io)
    while (this.#waiting.size > 0) {
      const list = await client.json<ListView>('GET', pathOf(vmKind), { signal })
      const found = new Map(list.items.map((vm) => [keyOf(vm), vm]))
      for (const key of [...this.#waiting.keys()]) this.#judge(key, found.get(key))
      if (this.#waiting.size === 0) return
      const query = { resourceVersion: list.metadata?.resourceVersion, timeoutSeconds: '60' }
      for await (const { type, object } of client.watch<ObjectView>(pathOf(vmKind), { query, signal })) {
        if (type === 'BOOKMARK' || !this.#waiting.has(keyOf(object))) continue
        this.#judge(keyOf(object), type === 'DELETED' ? undefined : object)
        if (this.#waiting.size === 0) return
      }
    }
  }

  #judge(key: string, vm: ObjectView | undefined): void {
    const { host, say, machines, io } = this.#options
    const state = takenState(host, vm)
    const marked = markedWith.has(vm?.status?.reason ?? '')
    const kept = vm && placeOf(vm) === host && marked ? keptBy(vm) : undefined
    if (state.done || kept !== undefined) {
      this.#waiting.delete(key)
      this.#progress.end()
      say(`${key} ${kept === undefined ? state.text : `stays: ${kept}`}`)
      this.#progress = progressLine(io)
    } else this.#waiting.set(key, state.text)
    const [next] = this.#waiting
    if (next)
      this.#progress.show(
        `${this.#waiting.size} of ${counted(machines.length, 'machine')} to go; ${next[0]} ${next[1]}`,
      )
  }
}
