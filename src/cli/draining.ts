import type { VirtualMachine } from '../resources/vm.ts'
import type { Client } from './client.ts'
import type { DrainItem, DrainState } from './drain-plan.ts'
import { isServerError } from './failure.ts'
import { counted, keyOf } from './hosts.ts'
import type { Io } from './io.ts'
import { kindOf, pathOf } from './kinds.ts'
import { progressLine } from './progress.ts'
import type { ListView } from './targets.ts'

export interface Settled {
  readonly key: string
  /** late: the time was over; stays: its host did not take the request. */
  readonly over: NonNullable<DrainState['over']> | 'late' | 'stays'
  readonly text: string
}

export interface DrainingOptions {
  readonly client: Client
  readonly name: string
  /** Those to move, to shut down, and to see leave. */
  readonly items: readonly DrainItem[]
  readonly timeoutMs: number
  readonly say: (text: string) => void
  readonly io: Io
}

/** How often a machine is asked whose host takes the request away and does nothing. */
const asks = 3
const vmKind = kindOf('vm')

/** Asks machines to leave a host, or to shut down, and follows them until each has. */
export class Draining {
  readonly #options: DrainingOptions
  readonly #waiting = new Map<string, DrainItem>()
  readonly #asked = new Map<string, number>()
  readonly #settled: Settled[] = []
  readonly #doing = new Map<string, string>()
  #progress: ReturnType<typeof progressLine>

  constructor(options: DrainingOptions) {
    this.#options = options
    for (const item of options.items) this.#waiting.set(keyOf(item.vm), item)
    this.#progress = progressLine(options.io)
  }

  /**
   * @returns what became of each
   * @throws the error that ended it, after saying on stderr how things stand and how to undo them
   */
  async run(): Promise<readonly Settled[]> {
    const { io, timeoutMs } = this.#options
    const late = new AbortController()
    const cancel = io.clock.after(timeoutMs, () => late.abort(new Error('deadline')))
    try {
      await this.#follow(AbortSignal.any([late.signal, io.signal]))
    } catch (error) {
      if (!late.signal.aborted || io.signal.aborted) {
        this.#progress.end()
        io.stderr.write(this.#standing())
        throw error
      }
      for (const key of this.#waiting.keys())
        this.#settled.push({
          key,
          over: 'late',
          text: `${this.#doing.get(key)}, after ${timeoutMs / 1000} s`,
        })
    } finally {
      cancel()
      this.#progress.end()
    }
    return this.#settled
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { client } = this.#options
    while (this.#waiting.size > 0) {
      const list = await client.json<ListView<VirtualMachine>>('GET', pathOf(vmKind), { signal })
      const found = new Map(list.items.map((vm) => [keyOf(vm), vm]))
      for (const key of [...this.#waiting.keys()]) await this.#judge(key, found.get(key), signal)
      if (this.#waiting.size === 0) return
      const query = { resourceVersion: list.metadata?.resourceVersion, timeoutSeconds: '60' }
      for await (const { type, object } of client.watch<VirtualMachine>(pathOf(vmKind), { query, signal })) {
        if (type === 'BOOKMARK' || !this.#waiting.has(keyOf(object))) continue
        await this.#judge(keyOf(object), type === 'DELETED' ? undefined : object, signal)
        if (this.#waiting.size === 0) return
      }
    }
  }

  async #judge(key: string, vm: VirtualMachine | undefined, signal: AbortSignal): Promise<void> {
    const { name } = this.#options
    const item = this.#waiting.get(key)
    if (!item) return
    const { drainState } = await import('./drain-plan.ts')
    // Another machine by that name is not the one that was here.
    const same = vm && vm.metadata.uid === item.vm.metadata.uid ? withLists(vm) : undefined
    const state = drainState(item, name, same)
    this.#doing.set(key, state.text)
    if (state.over) return this.#settle({ key, over: state.over, text: state.text })
    if (state.ask && item.fate !== 'leave') await this.#ask(key, item, signal)
    this.#show()
  }

  async #ask(key: string, { vm, fate }: DrainItem, signal: AbortSignal): Promise<void> {
    const { client, say } = this.#options
    const { namespace = 'default', name } = vm.metadata
    const before = this.#asked.get(key) ?? 0
    if (before >= asks) {
      const text = `its host did nothing when it was asked ${asks} times; see 'plasmavmc events -n ${namespace}'`
      return this.#settle({ key, over: 'stays', text })
    }
    const verb = fate === 'move' ? 'move' : 'stop'
    // Counted before the answer: a request that is cut short may have been heard.
    this.#asked.set(key, before + 1)
    try {
      await client.json('POST', `${pathOf(vmKind, namespace, name)}/${verb}`, { body: {}, signal })
    } catch (error) {
      if (!isServerError(error, 'Conflict') && !isServerError(error, 'NotFound')) throw error
      // It changed meanwhile: the watch tells how.
      if (before > 0) this.#asked.set(key, before)
      else this.#asked.delete(key)
      return
    }
    if (before > 0) return
    this.#progress.end()
    say(`${key} ${fate === 'move' ? 'is asked to move' : 'is asked to shut down'}`)
    this.#progress = progressLine(this.#options.io)
  }

  #settle(settled: Settled): void {
    this.#waiting.delete(settled.key)
    this.#settled.push(settled)
    this.#progress.end()
    this.#options.say(`${settled.key} ${settled.text}`)
    this.#progress = progressLine(this.#options.io)
    this.#show()
  }

  #show(): void {
    const [first] = this.#waiting.keys()
    if (first === undefined) return
    const { name, items } = this.#options
    const left = `${this.#waiting.size} of ${counted(items.length, 'machine')}`
    this.#progress.show(`draining ${name}: ${left} to go; ${first}: ${this.#doing.get(first)}`)
  }

  /** How things stand when it ends early. */
  #standing(): string {
    const { name } = this.#options
    const going = [...this.#waiting.keys()].filter((key) => this.#asked.has(key))
    const list = going.length > 0 ? `, and these go on leaving it or shutting down: ${going.join(', ')}` : ''
    return `stopped waiting: host ${name} stays cordoned${list}\nto go on: plasmavmc drain ${name}; to undo the cordon: plasmavmc uncordon ${name}\n`
  }
}

/** What stands in a watch has no defaults in it where the status is new. */
function withLists(vm: VirtualMachine): VirtualMachine {
  if (!vm.status) return vm
  return { ...vm, status: { ...vm.status, conditions: vm.status.conditions ?? [] } }
}
