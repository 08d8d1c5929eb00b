import type { Disks, LaunchRecord, Machines, Processes } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import { adviceOf, PlasmaError } from '../../lib/errors.ts'
import type { Log } from '../../lib/log.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { exponential } from '../../runtime/backoff.ts'
import type { QmpCall } from './live-steps.ts'
import type { Memories } from './memory.ts'
import type { Action } from './types.ts'

export interface LiveDeps {
  readonly processes: Processes
  readonly machines: Machines
  readonly disks: Disks
  readonly memories: Memories
  readonly clock: Clock
  readonly log: Log
}

const retryBaseMs = 1_000
const retryCapMs = 60_000

/** QEMU's human monitor answers in text and has no errors: these are the beginnings of its refusals. */
const refusals = /^(could not|invalid|unrecognized|error|device .* not found|unknown)/i

async function call({ command, args }: QmpCall, uid: string, machines: Machines): Promise<void> {
  // The union's members match each other; the compiler can't see that across a generic call.
  const execute = machines.execute as (uid: string, command: string, args: unknown) => Promise<unknown>
  const answer = await execute.call(machines, uid, command, args)
  if (command !== 'human-monitor-command' || typeof answer !== 'string') return
  const text = answer.trim()
  if (refusals.test(text)) throw new PlasmaError('Refused', text)
}

/** Takes one step of a live change and remembers how it went; never rejects, so that one change can't hold up others. */
export async function takeLiveStep(
  { key, launchId, calls, grows }: Extract<Action, { do: 'live' }>,
  vm: VirtualMachine,
  deps: LiveDeps,
): Promise<void> {
  const uid = vm.metadata.uid ?? ''
  const memory = deps.memories.of(uid)
  if (memory.process?.launchId !== launchId) return
  memory.live ??= { generation: vm.metadata.generation ?? 0, tried: new Map() }
  const tries = (memory.live.tried.get(key)?.tries ?? 0) + 1
  let failure: { readonly error: string } | undefined
  try {
    if (grows !== undefined) await deps.disks.checkGrowth(vm, grows)
    for (const one of calls) await call(one, uid, deps.machines)
  } catch (error) {
    failure = { error: adviceOf(error) }
    deps.log.warn('a change to a running machine failed', { uid, key, tries, err: error })
  }
  const at = deps.clock.elapsed() + exponential(tries, retryBaseMs, retryCapMs)
  memory.live.tried.set(key, { tries, at, ...failure })
}

/**
 * Brings launch.json up to date; a record that is not this launch's is no longer relied on. Where writing failed, what it
 * says is read: the guard goes by that file, and status.onHostLoss by what is remembered of it.
 */
export async function noteSpec(
  { launchId, spec, pending }: Extract<Action, { do: 'noteSpec' }>,
  uid: string,
  { processes, memories }: LiveDeps,
): Promise<void> {
  const memory = memories.of(uid)
  if (memory.process?.launchId !== launchId) return
  const { record: _before, ...process } = memory.process
  const remember = (record: LaunchRecord | undefined) => {
    memory.process = record ? { ...process, record } : process
  }
  remember(undefined)
  try {
    remember(await processes.noteSpec(uid, launchId, { spec, pending }))
  } catch (error) {
    remember(await processes.launchRecord(uid).catch(() => undefined))
    throw error
  }
}
