import { isDeepStrictEqual } from 'node:util'
import type { LaunchRecord } from '../../host/ports.ts'
import { diskDeviceId } from '../../host/qemu-disks.ts'
import { networkIds } from '../../host/qemu-networks.ts'
import type { VmSpec } from '../../resources/vm.ts'
import type { Draft } from './draft.ts'
import { applied, type LiveChange, specDiff, wordsOf } from './live-changes.ts'
import { isOpen, type Step, stepOf } from './live-steps.ts'
import type { MachineFacts } from './machine-facts.ts'
import type { ProcessFact } from './types.ts'

type Alive = Extract<ProcessFact, { state: 'alive' }>

/** Changes that are judged without asking QEMU. */
const needNoFacts: ReadonlySet<LiveChange['kind']> = new Set(['policy', 'watchdog'])

const waitRecheckMs = 5_000
const unasked = 'QEMU has not said what it has'

/** launch.json's spec of exactly this process: an older one tells nothing of it. */
export function runningSpec({ record, launchId }: Pick<Alive, 'record' | 'launchId'>): VmSpec | undefined {
  return record && record.launchId === launchId ? record.manifest.spec : undefined
}

/** Whether QEMU must be asked for its parts before a running machine can be brought to its spec. */
export function needsFacts(running: VmSpec, wanted: VmSpec): boolean {
  return specDiff(running, wanted).changes.some(({ kind }) => !needNoFacts.has(kind))
}

/**
 * The running spec without what is wanted and has gone by itself: a guest may let a device go long after that was asked
 * for, when it is wanted again.
 */
function withoutLost(running: VmSpec, wanted: VmSpec, facts: MachineFacts | undefined): VmSpec {
  if (!facts || running.machine === 'microvm') return running
  const isWanted = (list: readonly { name: string }[], name: string) =>
    list.some((item) => item.name === name)
  const disks = running.disks.filter(
    ({ name }) => facts.devices.has(diskDeviceId(name)) || !isWanted(wanted.disks, name),
  )
  const networks = running.networks.filter(
    ({ name }) => facts.devices.has(networkIds(name).device) || !isWanted(wanted.networks, name),
  )
  return { ...running, disks, networks }
}

/** Tells which members wait for the next start, and that nothing is changed now: QEMU does not answer, or is to end. */
export function describeChanges(draft: Draft, alive: Alive, why: string): void {
  const running = runningSpec(alive)
  if (!running) return describeByHash(draft)
  const { changes, restart, refused } = specDiff(running, draft.vm.spec, alive.facts)
  restartRequired(draft, restart)
  const { adding = [], leaving = [] } = alive.record?.pending ?? {}
  const changing = changes.filter(({ kind }) => kind !== 'policy').map(wordsOf)
  const waiting = [
    ...changing,
    ...refused,
    ...[...adding, ...leaving].map((id) => `device ${id} is under way`),
  ]
  if (waiting.length === 0) draft.condition('Synchronized', 'True', 'UpToDate')
  else draft.condition('Synchronized', 'False', why, waiting.join('; '))
}

/** A QEMU without its launch.json: the hash alone says whether something differs, not what. */
function describeByHash(draft: Draft): void {
  if (draft.status.process?.specHash === draft.seen.specHash) {
    draft.condition('RestartRequired', 'False', 'UpToDate')
    return draft.condition('Synchronized', 'True', 'UpToDate')
  }
  const message = 'the spec has changes that take effect at the next start'
  draft.condition('RestartRequired', 'True', 'SpecChanged', message)
  draft.condition('Synchronized', 'Unknown', 'NoLaunchRecord', 'what QEMU was started with is not known')
}

function restartRequired(draft: Draft, paths: readonly string[]): void {
  if (paths.length === 0) return draft.condition('RestartRequired', 'False', 'UpToDate')
  const take = paths.length === 1 ? 'takes' : 'take'
  const message = `${paths.join(', ')} ${take} effect at the next start`
  draft.condition('RestartRequired', 'True', 'SpecChanged', message)
}

/**
 * Brings a guest that runs to its spec as far as that goes without a restart, one step a change and pass: what QEMU
 * already has is noted in launch.json, the next step of the rest is taken, each with a capped back-off of its own.
 */
export function planLive(draft: Draft, alive: Alive): void {
  const recorded = runningSpec(alive)
  const { record, launchId } = alive
  if (!recorded || !record || launchId === undefined) return describeByHash(draft)
  const running = withoutLost(recorded, draft.vm.spec, alive.facts)
  const { changes, restart, refused } = specDiff(running, draft.vm.spec, alive.facts)
  restartRequired(draft, restart)
  if (record.pending && !alive.facts) {
    draft.recheckIn(waitRecheckMs)
    return draft.condition('Synchronized', 'False', 'Applying', unasked)
  }
  const steps = stepsOf(draft, alive, running, changes)
  const noted = note(draft, { ...record, launchId }, running, steps, alive.facts)
  if (alive.facts) prepareNewDisks(draft, changes, alive.facts)
  const waiting = steps.flatMap((one) => take(draft, launchId, one))
  synchronized(draft, refused, [...noted, ...waiting])
}

interface ChangeStep {
  readonly change: LiveChange
  readonly step: Step
}

interface Waiting {
  readonly message: string
  readonly failed: boolean
}

const noFacts: MachineFacts = {
  ...{ devices: new Map(), freePorts: [], nodes: new Set(), disks: new Map(), netdevs: new Set() },
  forwards: new Map(),
}

function stepsOf(
  draft: Draft,
  { facts }: Alive,
  running: VmSpec,
  changes: readonly LiveChange[],
): readonly ChangeStep[] {
  const ports = [...(facts?.freePorts ?? [])]
  const context = {
    facts: facts ?? noFacts,
    machine: running.machine,
    uid: draft.vm.metadata.uid ?? '',
    fileOf: (name: string) => fileOf(draft, name),
    takePort: () => ports.shift(),
  }
  return changes.map((change) => {
    if (!facts && !needNoFacts.has(change.kind)) return { change, step: { state: 'wait', why: unasked } }
    const step = stepOf(change, context)
    const obeyed = step.state === 'do' && step.blind && draft.seen.live[keyOf(change, step.stage)]?.done
    return { change, step: obeyed ? { state: 'done' } : step }
  })
}

function keyOf(change: LiveChange, stage: string): string {
  return `${wordsOf(change)}/${stage}`
}

function fileOf({ seen }: Draft, name: string): { path: string } | { why: string } {
  const disk = seen.disks.find((candidate) => candidate.name === name)
  const claim = seen.diskClaim
  if (claim && claim.path === disk?.path)
    return { why: `${claim.path} is a writable disk of ${claim.by} too` }
  if (disk?.state === 'ready' && disk.path !== undefined) return { path: disk.path }
  return { why: disk?.state === 'failed' ? (disk.message ?? 'it failed') : 'it is being prepared' }
}

/** The device that a change plugs in or out; undefined for one that does neither. */
function deviceOf(
  change: LiveChange,
): { readonly id: string; readonly list: 'adding' | 'leaving' } | undefined {
  switch (change.kind) {
    case 'addDisk':
      return { id: diskDeviceId(change.disk.name), list: 'adding' }
    case 'removeDisk':
      return { id: diskDeviceId(change.disk.name), list: 'leaving' }
    case 'addNetwork':
      return { id: networkIds(change.network.name).device, list: 'adding' }
    case 'removeNetwork':
      return { id: networkIds(change.network.name).device, list: 'leaving' }
    default:
      return undefined
  }
}

/**
 * What QEMU has is what it runs with, and what it is about to be asked for it may have: both stand in launch.json
 * before anything else is done, so that neither a restarted agent nor a spec that changes back loses a device.
 * @returns what is done and was not noted yet
 */
function note(
  draft: Draft,
  record: LaunchRecord,
  running: VmSpec,
  steps: readonly ChangeStep[],
  facts: MachineFacts | undefined,
): readonly Waiting[] {
  const { adding = [], leaving = [] } = record.pending ?? {}
  const finished = steps.filter(({ step }) => step.state === 'done')
  const begun = steps.filter(({ change, step }) => {
    const device = deviceOf(change)
    const known = device && [...adding, ...leaving].includes(device.id)
    return device && step.state !== 'done' && (known || step.state === 'do')
  })
  const devices = begun.flatMap(({ change }) => deviceOf(change) ?? [])
  const listed = (list: 'adding' | 'leaving') =>
    devices.filter((one) => one.list === list).map(({ id }) => id)
  // One that is wanted again may still be let go, as long as it has not been seen gone.
  const wantedAgain = leaving.filter(
    (id) => !facts || (facts.devices.has(id) && !listed('leaving').includes(id)),
  )
  const pending = { adding: listed('adding'), leaving: [...listed('leaving'), ...wantedAgain] }
  const added = begun.filter(({ change }) => deviceOf(change)?.list === 'adding')
  const spec = [...finished, ...added].reduce((so, { change }) => applied(so, draft.vm.spec, change), running)
  const before = { adding, leaving }
  if (isDeepStrictEqual(spec, record.manifest.spec) && isDeepStrictEqual(pending, before)) return []
  draft.act({ do: 'noteSpec', launchId: record.launchId, spec, pending })
  const arrived = adding.filter((id) => facts?.devices.has(id) && !pending.leaving.includes(id))
  const done = [
    ...finished.flatMap(({ change }) => (change.kind === 'policy' ? [] : [wordsOf(change)])),
    ...arrived.map((id) => `new device ${id}`),
  ].map((words) => `${words}: done`)
  for (const message of done) draft.tell('Normal', 'SpecApplied', message)
  return done.map((message) => ({ message, failed: false }))
}

/** Only the disks that are new: one that QEMU has open is none of qemu-img's business. */
function prepareNewDisks(draft: Draft, changes: readonly LiveChange[], facts: MachineFacts): void {
  const added = changes.flatMap((change) => (change.kind === 'addDisk' ? [change.disk.name] : []))
  const names = new Set(added.filter((name) => !isOpen(name, facts)))
  const due = draft.seen.disks.filter(({ name, state }) => {
    if (!names.has(name) || (state !== 'absent' && state !== 'failed')) return false
    if (state === 'absent' || draft.seen.diskRetryInMs <= 0) return true
    draft.recheckIn(draft.seen.diskRetryInMs)
    return false
  })
  if (due.length > 0) draft.act({ do: 'prepareDisks', only: due.map(({ name }) => name) })
}

/** Takes the step of a change, unless it was taken only just now. @returns what there is to wait for, if anything */
function take(draft: Draft, launchId: string, { change, step }: ChangeStep): readonly Waiting[] {
  if (step.state === 'done') return []
  const words = wordsOf(change)
  if (step.state === 'wait') {
    draft.recheckIn(waitRecheckMs)
    return [{ message: `${words}: ${step.why}`, failed: false }]
  }
  const key = keyOf(change, step.stage)
  const tried = draft.seen.live[key]
  if (tried && tried.retryInMs > 0) draft.recheckIn(tried.retryInMs)
  else {
    const grows = step.grows === undefined ? {} : { grows: step.grows }
    draft.act({ do: 'live', key, launchId, calls: step.calls, ...grows })
  }
  const asked = step.stage === 'unplug' ? 'the guest is asked to let it go' : 'under way'
  return [{ message: `${words}: ${tried?.error ?? asked}`, failed: tried?.error !== undefined }]
}

function synchronized(draft: Draft, refused: readonly string[], waiting: readonly Waiting[]): void {
  const messages = [...refused, ...waiting.map(({ message }) => message)]
  if (messages.length === 0) return draft.condition('Synchronized', 'True', 'UpToDate')
  const before = draft.vm.status?.conditions.find(({ type }) => type === 'Synchronized')?.message ?? ''
  for (const { message, failed } of waiting)
    if (failed && !before.includes(message)) draft.tell('Warning', 'ChangeFailed', message)
  const failed = waiting.some((one) => one.failed)
  const reason = failed ? 'Failed' : waiting.length > 0 ? 'Applying' : 'Refused'
  draft.condition('Synchronized', 'False', reason, messages.join('; '))
}
