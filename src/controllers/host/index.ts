import { isDeepStrictEqual } from 'node:util'
import type { LaunchRecord, Processes, QemuProcess } from '../../host/ports.ts'
import type { Clock } from '../../lib/clock.ts'
import { rfc3339 } from '../../lib/clock.ts'
import type { Log } from '../../lib/log.ts'
import { type ConditionFact, setConditions } from '../../resources/conditions.ts'
import { apiVersionOf } from '../../resources/define.ts'
import { Host, hostSpec } from '../../resources/host.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import type { Informer } from '../../runtime/informer.ts'
import { ApiError, isReason } from '../../store/errors.ts'
import type { ObjectStore } from '../../store/objects.ts'

export interface HostFacts {
  readonly cpus: number
  readonly memory: string
  readonly accelerator: string
  readonly qemuVersion: string
  readonly agentVersion: string
  /** Why no machine can be started here: QEMU is missing or too old. */
  readonly qemuProblem?: string
}

export interface HostControllerDeps {
  readonly hostName: string
  readonly runDir: string
  readonly objects: ObjectStore
  readonly processes: Processes
  readonly vms: Informer<VirtualMachine>
  readonly facts: () => Promise<HostFacts>
  readonly clock: Clock
  readonly log: Log
}

type HostStatus = NonNullable<Host['status']>
type Orphan = HostStatus['orphans'][number]

/** QEMUs with our mark and this run directory that no machine claims. Foreign ones and other servers' are not ours to list. */
export function orphansOf(
  processes: readonly QemuProcess[],
  runDir: string,
  claimed: ReadonlySet<string>,
): readonly QemuProcess[] {
  return processes.filter((p) => p.launchId !== undefined && p.runDir === runDir && !claimed.has(p.uid))
}

/**
 * One look at the host: registers it, and records what it has and which QEMUs nobody claims. Writes only changes.
 * @returns how many QEMUs nobody claims
 */
export async function reconcileHost(deps: HostControllerDeps): Promise<number> {
  const host = await ensureHost(deps)
  const [scan, { qemuProblem, ...facts }] = await Promise.all([deps.processes.scan(), deps.facts()])
  const claimed = new Set(deps.vms.list().map((vm) => vm.metadata.uid ?? ''))
  const found = deps.vms.synced ? orphansOf(scan.processes, deps.runDir, claimed) : []
  const orphans = await Promise.all(found.map((process) => describe(process, deps)))
  const before = host.status
  const wasReady = before?.conditions.find(({ type }) => type === 'Ready')
  if (qemuProblem !== undefined && wasReady?.message !== qemuProblem)
    deps.log.error('no machine can be started here', { why: qemuProblem })
  for (const orphan of orphans) {
    if (before?.orphans.some((o) => o.uid === orphan.uid)) continue
    deps.log.warn('a QEMU with our mark has no resource', {
      uid: orphan.uid,
      pid: orphan.pid,
      name: orphan.name,
    })
  }
  const status: HostStatus = {
    addresses: before?.addresses ?? [],
    capabilities: before?.capabilities ?? [],
    ...facts,
    bootId: deps.processes.bootId,
    vms: deps.vms.list().filter((vm) => vm.status?.hostName === deps.hostName && vm.status.process).length,
    orphans,
    conditions: setConditions(
      before?.conditions,
      readiness(scan.incomplete, qemuProblem),
      rfc3339(deps.clock.now()),
      host.metadata.generation ?? 0,
    ),
  }
  if (!isDeepStrictEqual({ ...before, ...status }, before))
    await deps.objects.updateStatus(Host, { ...host, status: { ...before, ...status } })
  return orphans.length
}

function readiness(incomplete: string | undefined, qemuProblem: string | undefined): ConditionFact[] {
  const no = (reason: string, message: string) => [
    { type: 'Ready', status: 'False', reason, message } as const,
  ]
  if (incomplete !== undefined) return no('ProcessesUnreadable', incomplete)
  if (qemuProblem !== undefined) return no('QemuUnusable', qemuProblem)
  return [{ type: 'Ready', status: 'True', reason: 'Ready', message: '' }]
}

async function ensureHost(deps: HostControllerDeps): Promise<Host> {
  const { objects, hostName } = deps
  try {
    return await objects.get(Host, { name: hostName })
  } catch (error) {
    if (!isReason(error, 'NotFound')) throw error
  }
  const spec = hostSpec.parse({})
  try {
    return await objects.create(Host, {
      apiVersion: apiVersionOf(Host),
      kind: 'Host',
      metadata: { name: hostName },
      spec,
    })
  } catch (error) {
    if (error instanceof ApiError && error.reason === 'AlreadyExists')
      return objects.get(Host, { name: hostName })
    throw error
  }
}

async function describe(process: QemuProcess, deps: HostControllerDeps): Promise<Orphan> {
  const base = {
    uid: process.uid,
    pid: process.pid,
    name: process.name,
    ...(process.launchId && { launchId: process.launchId }),
  }
  let record: LaunchRecord | undefined
  try {
    record = await deps.processes.launchRecord(process.uid)
  } catch (error) {
    deps.log.warn('launch record is unreadable', { uid: process.uid, err: error })
  }
  if (!record || record.launchId !== process.launchId) return base
  const { apiVersion, kind, metadata, spec } = record.manifest
  const { name, namespace, uid, labels, annotations } = metadata
  const manifest = { apiVersion, kind, metadata: { name, namespace, uid, labels, annotations }, spec }
  return { ...base, startedAt: record.at, manifest: JSON.stringify(manifest) }
}
