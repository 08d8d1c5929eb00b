import { vmFinalizer } from '../../resources/vm.ts'
import { cleanExits, powerAfterRequest } from '../../resources/vm-power.ts'
import type { Draft } from './draft.ts'
import { backoffLeftMs, classifyGone, recordExit } from './exits.ts'
import { claimExports } from './exports.ts'
import { giveUp, grantMove, promised } from './placed.ts'

/** Why a launch was given up right before it: nobody's failure, and not counted. */
const untried: ReadonlySet<string> = new Set(['LeaseLost', 'DiskInUse', 'ClaimsUnknown'])

/** The process is proven gone: note how it ended, then be deleted, stay down, or come up. */
export function planAbsent(draft: Draft): void {
  const unproven = ofAnotherBoot(draft) && draft.leaseWait
  if (unproven) return draft.waitForLease('Unknown', unproven)
  const stoppedToMove = draft.status.stop?.why === 'Move'
  noteEnd(draft)
  const moves = takeRequest(draft) || (stoppedToMove && grantMove(draft))
  if (draft.deleting) return dispose(draft)
  if (moves && !draft.seen.launching) return move(draft)
  if (draft.status.power?.desired !== 'Up') return rest(draft)
  if (misplaced(draft)) return
  const wait = draft.leaseWait
  // Before its disks too: on a pool that hosts share, only the one that may run it makes and grows them.
  if (wait) return draft.waitForLease('Pending', wait)
  if (!disksReady(draft)) return
  launch(draft)
}

/**
 * Whether the status tells of a run in another boot. It is gone if this is the host on which it ran, and only the lease
 * tells: a copy of that host's disk, started beside it, would else forget a run that goes on.
 */
function ofAnotherBoot({ status, seen }: Draft): boolean {
  return [status.process, status.launch].some((run) => run !== undefined && run.bootId !== seen.bootId)
}

/**
 * Gives the machine up, but only while the lease is held: without it this host may be another of its name, a copy of its
 * disk, and not the one on which the machine ran.
 */
function move(draft: Draft): void {
  const wait = draft.leaseWait
  if (!wait) return giveUp(draft)
  const { stop, request } = draft.vm.status ?? {}
  if (stop) draft.status.stop = stop
  if (request) draft.status.request = request
  draft.waitForLease('Pending', wait)
}

/** What keeps the machine from running here, whatever the lease. In a cluster the leader has judged where it belongs. */
function misplaced(draft: Draft): boolean {
  const alone = draft.seen.tenure.state === 'single'
  const mismatch = Object.entries(draft.vm.spec.hostSelector).find(
    ([key, value]) => draft.seen.hostLabels[key] !== value,
  )
  if (alone && mismatch) {
    draft.phase(
      'Pending',
      'Unschedulable',
      `spec.hostSelector: no host has the label ${mismatch[0]}=${mismatch[1]}`,
    )
    return true
  }
  if (!draft.seen.diskClaim) return false
  const { by, field, path } = draft.seen.diskClaim
  draft.recheckIn(10_000)
  draft.phase('Pending', 'DiskInUse', `${field}: ${path} is a writable disk of ${by} too`)
  return true
}

/** Classifies the end of the launch that the status still tells of, and forgets its process. */
function noteEnd(draft: Draft): void {
  const { status, seen } = draft
  const { launchError } = seen
  if (status.process) {
    const known = status.lastExit?.launchId === status.process.launchId
    if (!known) recordExit(draft, classifyGone(draft))
  } else if (status.launch && launchError?.launchId === status.launch.id) {
    if (untried.has(launchError.code)) status.restarts -= status.lastExit ? 1 : 0
    else
      recordExit(draft, { reason: 'LaunchFailed', message: launchError.message, launchId: status.launch.id })
    delete status.launch
  } else if (status.launch && seen.exit && status.lastExit?.launchId !== status.launch.id) {
    recordExit(draft, classifyGone(draft))
  }
  if (status.process || !seen.launching) {
    delete status.launch
    delete status.process
    delete status.onHostLoss
    delete status.exports
  }
  delete status.stop
  delete status.pausedByUser
  delete status.ioError
  draft.condition('Paused', 'False', 'NotRunning')
  draft.condition('Synchronized', 'True', 'NotRunning')
  draft.condition('RestartRequired', 'False', 'NotRunning')
}

/** @returns whether the machine is to be given up */
function takeRequest(draft: Draft): boolean {
  const { status } = draft
  if (!status.request || !status.power) return false
  const { action } = status.request
  delete status.request
  if (action === 'Start' || action === 'Restart') {
    status.power = powerAfterRequest(status.power, 'Up')
    delete status.backoff
  } else if (action === 'Stop') status.power = powerAfterRequest(status.power, 'Down')
  return action === 'Move' && !draft.deleting && grantMove(draft)
}

function dispose(draft: Draft): void {
  if (draft.seen.disposed) {
    const others = draft.vm.metadata.finalizers?.filter((name) => name !== vmFinalizer) ?? []
    const waits = others.length > 0 ? `; the object waits for others: finalizer ${others.join(', ')}` : ''
    draft.phase('Terminating', 'Removed', `disks and run directory are removed${waits}`)
    if (draft.vm.metadata.finalizers?.includes(vmFinalizer)) draft.act({ do: 'dropFinalizer' })
    return
  }
  const wait = draft.leaseWait
  if (wait) return draft.waitForLease('Terminating', wait)
  const { disposeError } = draft.seen
  if (disposeError === undefined)
    draft.phase('Terminating', 'RemovingDisks', 'QEMU is gone; disks and run directory are being removed')
  else {
    const message = `QEMU is gone, but what it left can't be removed: ${disposeError}; tried again`
    if (draft.vm.status?.reason !== 'RemovalFailed') draft.announce('Warning', 'RemovalFailed', message)
    draft.phase('Terminating', 'RemovalFailed', message)
  }
  draft.act({ do: 'dispose' })
}

function rest(draft: Draft): void {
  const { lastExit } = draft.status
  // What is meant to be down has no next try; its next start is asked for, and does not wait.
  delete draft.status.backoff
  const failed =
    lastExit !== undefined && !cleanExits.has(lastExit.reason) && draft.vm.spec.runStrategy !== 'Halted'
  if (failed) draft.phase('Failed', lastExit.reason, lastExit.message)
  else draft.phase('Stopped', lastExit?.reason ?? 'NeverStarted', lastExit?.message)
}

function disksReady(draft: Draft): boolean {
  const { launching } = draft.seen
  const waiting = draft.seen.disks.filter((disk) => disk.state !== 'ready' || (disk.stale && !launching))
  if (waiting.length === 0) return true
  const failed = waiting.find((disk) => disk.state === 'failed')
  if (failed) {
    const message = `${failed.name}: ${failed.message ?? 'failed'}`
    if (draft.vm.status?.reason !== 'DiskFailed') draft.announce('Warning', 'DiskFailed', message)
    draft.phase('Pending', 'DiskFailed', message)
    if (draft.seen.diskRetryInMs > 0) draft.recheckIn(draft.seen.diskRetryInMs)
    else draft.act({ do: 'prepareDisks' })
    return false
  }
  const progress = waiting.find((disk) => disk.progressPercent !== undefined)
  const names = waiting.map((disk) => disk.name).join(', ')
  draft.phase('Provisioning', 'PreparingDisks', progress ? `${names}: ${progress.progressPercent} %` : names)
  if (waiting.some((disk) => disk.state === 'absent' || disk.stale)) draft.act({ do: 'prepareDisks' })
  draft.recheckIn(1_000)
  return false
}

function launch(draft: Draft): void {
  const { status, seen, env } = draft
  if (seen.launching) {
    draft.phase('Starting', 'Launching')
    return
  }
  const wait = backoffLeftMs(status, env.now)
  if (wait > 0) {
    const why = status.lastExit ? `${status.lastExit.reason}: ${status.lastExit.message ?? ''}` : ''
    draft.phase(
      'CrashLoopBackOff',
      'BackOff',
      `next try at ${status.backoff?.retryAt}, after ${status.backoff?.failures} failures in a row; last ${why}`,
    )
    draft.recheckIn(wait)
    return
  }
  const launchId = env.newId()
  delete status.guest
  status.launch = { id: launchId, at: draft.at, bootId: seen.bootId }
  claimExports(draft, draft.vm.spec)
  // What launch.json will say: it is written from the object that this is recorded in.
  if (seen.tenure.state !== 'single') status.onHostLoss = promised(draft)
  if (seen.lateWrites !== undefined && draft.vm.spec.recovery.onHostLoss === 'Failover')
    draft.tell('Warning', 'FailoverUnsafe', `its guard alone can't make it fail over: ${seen.lateWrites}`)
  if (status.lastExit) status.restarts += 1
  draft.phase('Starting', 'Launching')
  draft.act({ do: 'launch', launchId })
}
