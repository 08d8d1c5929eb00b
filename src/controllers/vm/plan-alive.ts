import { rfc3339 } from '../../lib/clock.ts'
import type { RunState } from '../../qmp/types.ts'
import type { VmAction } from '../../resources/vm.ts'
import { tooLate } from '../../resources/vm-actions.ts'
import { comesBack, powerAfterRequest } from '../../resources/vm-power.ts'
import { exponential } from '../../runtime/backoff.ts'
import type { Draft } from './draft.ts'
import { healthyRunMs, leftMs, recordExit } from './exits.ts'
import { ioCause, noteGuest, panicWords } from './guest.ts'
import { specDiff } from './live-changes.ts'
import { grantMove } from './placed.ts'
import { describeChanges, planLive, runningSpec } from './plan-live.ts'
import { planTaps } from './plan-taps.ts'
import type { ProcessFact } from './types.ts'

type Alive = Extract<ProcessFact, { state: 'alive' }>
type EndReason = 'Stopped' | 'GuestShutdown' | 'GuestPanicked' | 'WatchdogPoweroff' | 'InternalError'

/** A QEMU that has not answered for this long since it was first seen is no longer merely starting. */
const startGraceMs = 30_000
/** Between grace period, quit and kill. */
const killAfterQuitMs = 5_000
const powerdownAgainMs = 5_000
const silentRecheckMs = 1_000
const closedRecheckMs = 10
/** A QEMU that ends closes its socket a moment before its process is gone. */
const endingGraceMs = 250
const ioRetryBaseMs = 5_000
const ioRetryCapMs = 60_000
const ioRetryDelayMs = (retries: number) => exponential(retries, ioRetryBaseMs, ioRetryCapMs)

/** States in which QEMU holds a guest that could go on, which nothing but a request or a back-off ends. */
const heldByItself: ReadonlySet<RunState> = new Set(['watchdog', 'io-error'])

/** States in which the guest's run may be over, though QEMU still holds it; of the watchdog its action says which. */
const overStates: ReadonlySet<RunState> = new Set([
  'shutdown',
  'guest-panicked',
  'internal-error',
  'watchdog',
])

/** States in which QEMU has nothing under way that a change could disturb. */
const settled: ReadonlySet<RunState> = new Set(['running', 'paused', 'io-error', 'watchdog', 'suspended'])

/** The process lives: make the status tell of it, then stop it, keep it, or bring it to what is wanted. */
export function planAlive(draft: Draft, alive: Alive): void {
  adopt(draft, alive)
  takeRequest(draft, alive)
  const wantDown = draft.deleting || draft.status.power?.desired === 'Down'
  if (wantDown && !draft.status.stop && !isOver(draft, alive))
    startStop(draft, draft.deleting ? 'Deleted' : 'Stop')
  if (!wantDown && draft.status.stop && !comesBack.has(draft.status.stop.why)) delete draft.status.stop
  shortenStop(draft)
  if (alive.machine.state === 'answered') return answered(draft, alive, alive.machine.status)
  silent(draft, alive, alive.machine.message)
}

/** The end of this launch is recorded already and nothing contradicts it: what is left is a QEMU without a guest. */
function isOver(draft: Draft, { machine }: Alive): boolean {
  const { lastExit, process } = draft.status
  if (lastExit === undefined || lastExit.launchId !== process?.launchId) return false
  return machine.state !== 'answered' || overStates.has(machine.status)
}

function adopt(draft: Draft, alive: Alive): void {
  const { status, seen } = draft
  const { identity } = alive
  // The record belongs to this process only if it names the same launch.
  const own = alive.record?.launchId === alive.launchId ? alive.record : undefined
  const before = status.process
  if (
    before &&
    before.pid === identity.pid &&
    before.startTime === identity.startTime &&
    before.bootId === identity.bootId
  ) {
    if (own) status.process = { ...before, specHash: own.specHash }
    return
  }
  const launchId = alive.launchId ?? 'unmarked'
  status.process = {
    pid: identity.pid,
    startTime: identity.startTime,
    bootId: identity.bootId,
    launchId,
    accelerator: own?.accelerator ?? 'unknown',
    ...(own?.qemuVersion !== undefined && { qemuVersion: own.qemuVersion }),
    startedAt: own?.at ?? draft.at,
    specHash: own?.specHash ?? seen.specHash,
  }
  if (status.launch?.id !== launchId) takeOver(draft, alive)
  delete status.launch
}

/** One whose guest is held was held by a request that nobody remembers: whoever made it may rely on it. */
function takeOver(draft: Draft, { identity, machine }: Alive): void {
  const isHeld = machine.state === 'answered' && machine.status === 'paused'
  if (isHeld) draft.status.pausedByUser = true
  const stays = isHeld ? '; its guest is paused, and stays so until it is unpaused' : ''
  draft.tell('Normal', 'Adopted', `took over the running QEMU with pid ${identity.pid}${stays}`)
}

function startStop(draft: Draft, why: string): void {
  draft.status.stop = { why, at: draft.at, graceSeconds: draft.vm.spec.terminationGracePeriodSeconds }
  draft.tell(
    'Normal',
    'Stopping',
    `${why}: asking the guest to power down within ${draft.status.stop.graceSeconds} s`,
  )
}

/** A grace period that is made shorter meanwhile ends a stop that would take too long; a longer one is for the next. */
function shortenStop(draft: Draft): void {
  const { stop } = draft.status
  const graceSeconds = draft.vm.spec.terminationGracePeriodSeconds
  if (!stop || graceSeconds >= stop.graceSeconds) return
  draft.status.stop = { ...stop, graceSeconds }
  draft.tell('Normal', 'Stopping', `${stop.why}: the guest may now take ${graceSeconds} s in all`)
}

function takeRequest(draft: Draft, alive: Alive): void {
  const { status } = draft
  if (!status.request || !status.power) return
  const { action } = status.request
  const refused = unwanted(draft, alive, action)
  if (refused !== undefined) {
    draft.tell('Warning', 'RequestDropped', `${action} was asked for, but ${refused}`)
    delete status.request
    return
  }
  // What could make a guest go on waits with the lease.
  if (draft.leaseWait && (action === 'Unpause' || action === 'Reset'))
    return draft.recheckIn(draft.leaseWait.recheckMs)
  switch (action) {
    case 'Start':
      status.power = powerAfterRequest(status.power, 'Up')
      break
    case 'Stop':
      status.power = powerAfterRequest(status.power, 'Down')
      break
    case 'Restart':
      if (!status.stop) startStop(draft, 'Restart')
      break
    case 'Pause':
      status.pausedByUser = true
      break
    case 'Unpause':
      delete status.pausedByUser
      delete status.ioError
      if (alive.machine.state === 'answered' && heldByItself.has(alive.machine.status))
        draft.act({ do: 'resume' })
      break
    case 'Reset':
      draft.act({ do: 'reset' })
      draft.tell('Normal', 'Reset', 'reset was asked for')
      break
    case 'Move':
      if (draft.deleting || !grantMove(draft)) break
      if (status.stop) status.stop = { ...status.stop, why: 'Move' }
      else startStop(draft, 'Move')
      break
  }
  delete status.request
}

/** Why a request is not done, whatever the API has made of it: it has come too late, or would end a guest for good. */
function unwanted(draft: Draft, alive: Alive, action: VmAction): string | undefined {
  if (action === 'Start' || action === 'Stop' || action === 'Move') return undefined
  if (draft.deleting) return 'it is being deleted'
  const late = tooLate({ spec: draft.vm.spec, status: draft.status }, action)
  return late ?? (action === 'Restart' ? lastRun(draft, alive) : undefined)
}

/** Why this would be its last run for now: what a start looks at first, here before anything is stopped. */
function lastRun(draft: Draft, alive: Alive): string | undefined {
  const failed = draft.seen.disks.find(({ state }) => state === 'failed')
  if (failed) return `it would not start again: ${failed.name}: ${failed.message ?? 'failed'}`
  const running = runningSpec(alive)
  const [refused] = running ? specDiff(running, draft.vm.spec, alive.facts).refused : []
  return refused === undefined ? undefined : `it would not start again: ${refused}`
}

/**
 * How soon to look again at a QEMU that does not answer: one whose socket closed is most likely ending, and where it is
 * not our child nobody tells us when it has. Each wait is as long as the silence before it.
 */
function silentRecheck({ machine, silentForMs, stopped }: Alive): number {
  const slow = stopped || (machine.state === 'unreachable' && machine.why === 'timeout')
  return slow ? silentRecheckMs : Math.min(silentRecheckMs, Math.max(closedRecheckMs, silentForMs))
}

/** The socket closed only just now: until it is known what that means, the status stays as it is. */
function mayBeEnding({ machine, silentForMs, stopped }: Alive): boolean {
  return (
    !stopped && machine.state === 'unreachable' && machine.why !== 'timeout' && silentForMs < endingGraceMs
  )
}

function silent(draft: Draft, alive: Alive, why: string): void {
  draft.recheckIn(silentRecheck(alive))
  describeChanges(draft, alive, 'NoAnswer')
  // A process stopped by a signal can't take a powerdown, and one that does not answer may never: after the grace
  // period only the kill is left, and the process is identified by /proc, not by QMP.
  if (draft.status.stop && stopOverdue(draft, killAfterQuitMs)) {
    draft.condition('Paused', 'Unknown', 'NoAnswer')
    draft.act({ do: 'kill', identity: alive.identity, why: 'it did not answer within the grace period' })
    return draft.phase('Stopping', 'Killing', why)
  }
  if (isOver(draft, alive) && draft.seen.endedElapsedMs >= killAfterQuitMs) {
    draft.act({ do: 'kill', identity: alive.identity, why: 'QEMU did not quit after the guest ended' })
    return draft.phase('Stopping', 'Killing', why)
  }
  if (mayBeEnding(alive) && draft.vm.status?.phase !== undefined) return draft.hold()
  draft.condition('Paused', 'Unknown', 'NoAnswer')
  if (alive.stopped) {
    const message = `QEMU (pid ${alive.identity.pid}) is stopped by a signal; continue it with: kill -CONT ${alive.identity.pid}`
    return unresponsive(draft, 'ProcessStopped', message)
  }
  const before = draft.vm.status
  const starting =
    before?.phase === 'Starting' || before?.process?.launchId !== draft.status.process?.launchId
  if (starting && alive.silentForMs < startGraceMs) return draft.phase('Starting', 'WaitingForQmp', why)
  const way = `its guest may live, so it is left alone; to replace it: plasmavmc restart ${draft.vm.metadata.name}`
  unresponsive(draft, 'NoAnswer', `QEMU (pid ${alive.identity.pid}) does not answer QMP: ${why}; ${way}`)
}

/** By the reason, as the phase of a machine that is being deleted is Terminating. */
const wasUnresponsive = ({ vm }: Draft) =>
  vm.status?.reason === 'ProcessStopped' || vm.status?.reason === 'NoAnswer'

function unresponsive(draft: Draft, reason: string, message: string): void {
  if (!wasUnresponsive(draft)) draft.announce('Warning', 'Unresponsive', message)
  draft.phase('Unresponsive', reason, message)
}

function answered(draft: Draft, alive: Alive, state: RunState): void {
  draft.condition('Paused', 'False', 'NotPaused')
  noteGuest(draft)
  if (wasUnresponsive(draft)) draft.announce('Normal', 'Responsive', 'QEMU answers again')
  switch (state) {
    case 'shutdown':
      return ended(draft, alive, draft.status.stop ? 'Stopped' : 'GuestShutdown', 'the guest powered down')
    case 'guest-panicked':
      return ended(draft, alive, 'GuestPanicked', panicWords(draft))
    case 'internal-error':
      return ended(draft, alive, 'InternalError', 'QEMU met an internal error')
    case 'watchdog':
      if (draft.vm.spec.devices.watchdog?.action !== 'poweroff' && !isOver(draft, alive)) break
      return ended(draft, alive, 'WatchdogPoweroff', 'the watchdog fired and powered the guest off')
    default:
      break
  }
  if (draft.status.stop) return stopping(draft, alive, state)
  keep(draft, alive, state)
}

/** The guest's run is over but QEMU still holds it: note why, once, then let QEMU go. */
function ended(draft: Draft, alive: Alive, reason: EndReason, message: string): void {
  const launchId = draft.status.process?.launchId
  if (draft.status.lastExit?.launchId !== launchId) {
    recordExit(draft, { reason, message, ...(launchId !== undefined && { launchId }) })
  }
  draft.phase('Stopping', reason, message)
  describeChanges(draft, alive, 'Stopping')
  draft.recheckIn(silentRecheckMs)
  if (draft.seen.endedElapsedMs < killAfterQuitMs) return draft.act({ do: 'quit', why: message })
  draft.act({ do: 'kill', identity: alive.identity, why: 'QEMU did not quit after the guest ended' })
}

function stopOverdue(draft: Draft, extraMs: number): boolean {
  const graceMs = (draft.status.stop?.graceSeconds ?? 0) * 1000
  return draft.seen.stopElapsedMs >= graceMs + extraMs
}

function stopping(draft: Draft, alive: Alive, state: RunState): void {
  const { stop } = draft.status
  draft.phase(
    'Stopping',
    stop?.why ?? 'Stop',
    `powering down since ${stop?.at}, at most ${stop?.graceSeconds} s`,
  )
  describeChanges(draft, alive, 'Stopping')
  draft.recheckIn(silentRecheckMs)
  if (stopOverdue(draft, killAfterQuitMs)) {
    return draft.act({ do: 'kill', identity: alive.identity, why: 'QEMU did not quit' })
  }
  if (stopOverdue(draft, 0)) return draft.act({ do: 'quit', why: 'the grace period is over' })
  // A guest that does not run can't power down; waiting for it would only be waiting.
  if (state !== 'running')
    return draft.act({ do: 'quit', why: `a guest in the state ${state} can't power down` })
  if (draft.seen.stopElapsedMs % powerdownAgainMs < silentRecheckMs) draft.act({ do: 'powerdown' })
}

function keep(draft: Draft, alive: Alive, state: RunState): void {
  const isLost = draft.seen.tenure.state === 'lost'
  if (settled.has(state) && !isLost) {
    planLive(draft, alive)
    planTaps(draft, alive)
  } else describeChanges(draft, alive, isLost ? 'LeaseLost' : 'NotRunning')
  switch (state) {
    case 'running':
      return running(draft, alive)
    case 'prelaunch':
      return resume(draft, 'Starting')
    case 'paused':
      if (!draft.status.pausedByUser) return resume(draft, 'Paused')
      return paused(draft, 'PausedByUser', 'paused by request')
    case 'io-error':
      return ioError(draft, alive)
    case 'watchdog':
      return paused(draft, 'Watchdog', 'the watchdog fired; unpause or restart it')
    case 'inmigrate':
    case 'postmigrate':
    case 'finish-migrate':
      draft.phase('Migrating', state)
      return draft.recheckIn(silentRecheckMs)
    default:
      paused(draft, state, `QEMU is in the state ${state}`)
      return draft.recheckIn(silentRecheckMs)
  }
}

function resume(draft: Draft, phase: 'Starting' | 'Paused'): void {
  const wait = draft.leaseWait
  if (wait) return draft.waitForLease(phase, wait)
  draft.phase(phase, 'Resuming')
  draft.act({ do: 'resume' })
}

function paused(draft: Draft, reason: string, message: string): void {
  draft.phase('Paused', reason, message)
  draft.condition('Paused', 'True', reason, message)
  if (draft.vm.status?.reason !== reason)
    draft.announce(reason === 'PausedByUser' ? 'Normal' : 'Warning', reason, message)
}

function running(draft: Draft, alive: Alive): void {
  settleIoError(draft)
  if (draft.status.pausedByUser) {
    draft.phase('Running', 'Pausing')
    return draft.act({ do: 'pause' })
  }
  if (draft.vm.status?.phase !== 'Running')
    draft.announce('Normal', 'Running', `runs with pid ${alive.identity.pid}`)
  draft.phase('Running', 'Running')
  if (!draft.status.backoff) return
  if (alive.seenForMs >= healthyRunMs) delete draft.status.backoff
  else draft.recheckIn(healthyRunMs - alive.seenForMs)
}

/** Resuming alone is no success: only a while without an error clears the count of tries. */
function settleIoError(draft: Draft): void {
  const { status, env } = draft
  if (!status.ioError) return
  const { retryAt, retries } = status.ioError
  const left = leftMs(retryAt, env.now - healthyRunMs, ioRetryDelayMs(retries) + healthyRunMs)
  if (left === 0) delete status.ioError
  else draft.recheckIn(left)
}

function ioError(draft: Draft, { failedDisks }: Alive): void {
  const { status, env } = draft
  const before = status.ioError
  const cause = ioCause(draft, failedDisks)
  const held = status.pausedByUser ? 'held until it is unpaused' : 'resumed with back-off'
  paused(draft, 'IOError', `${cause ?? 'a disk failed'}; ${held}`)
  if (status.pausedByUser) return
  if (draft.leaseWait) return draft.recheckIn(draft.leaseWait.recheckMs)
  const left = before ? leftMs(before.retryAt, env.now, ioRetryDelayMs(before.retries)) : 0
  if (before && left > 0) {
    if (cause !== undefined) status.ioError = { ...before, cause }
    return draft.recheckIn(left)
  }
  const retries = (before?.retries ?? 0) + 1
  const delay = ioRetryDelayMs(retries)
  status.ioError = { retries, retryAt: rfc3339(env.now + delay), ...(cause !== undefined && { cause }) }
  if (before) draft.act({ do: 'resume' })
  draft.recheckIn(delay)
}
