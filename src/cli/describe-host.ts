import { fencedHolder, holderHost } from '../resources/host-lease.ts'
import type { Client } from './client.ts'
import { pairLines } from './describe-vm.ts'
import { getLease, type HostView, keyOf, type LeaseView, listAll, placeOf } from './hosts.ts'
import type { Io } from './io.ts'
import { promiseOf } from './lease-silence.ts'
import { age, renderTable } from './output.ts'
import type { ObjectView } from './targets.ts'

type Pair = readonly [string, string | undefined]

interface Status {
  readonly bootId?: string
  readonly cpus?: number
  readonly memory?: string
  readonly vms?: number
  readonly accelerator?: string
  readonly qemuVersion?: string
  readonly agentVersion?: string
  readonly addresses?: readonly string[]
  readonly capabilities?: readonly string[]
  readonly orphans?: readonly unknown[]
}

const ago = (at: string | undefined, io: Io) =>
  at === undefined ? '' : `${age(io.clock.now() - Date.parse(at))} ago`

async function sizeOf(memory: string | undefined): Promise<string | undefined> {
  if (memory === undefined) return undefined
  const { approximateQuantity, bytesOf } = await import('../resources/quantity.ts')
  return approximateQuantity(bytesOf(memory))
}

async function stateOf(host: HostView, io: Io): Promise<readonly Pair[]> {
  const { spec = {} } = host
  const status = (host.status ?? {}) as Status
  const { hostStatus, inMaintenance } = await import('../resources/host.ts')
  const now = io.clock.now()
  const { maintenance, overcommit = {}, taints = [] } = spec
  const { accelerator, qemuVersion, agentVersion } = status
  const over = maintenance && !inMaintenance(host as never, now) ? ', which is over' : ''
  const why = maintenance?.reason ? `: ${maintenance.reason}` : ''
  const orphans = status.orphans?.length ?? 0
  return [
    ['Status', hostStatus(host as never, now)],
    ['Maintenance', maintenance && `until ${maintenance.until}${over}${why}`],
    ['Addresses', status.addresses?.join(', ')],
    [
      'CPUs',
      status.cpus === undefined
        ? undefined
        : `${status.cpus}, of which machines may have ${overcommit.cpuPercent} %`,
    ],
    [
      'Memory',
      status.memory &&
        `${await sizeOf(status.memory)}, of which machines may have ${overcommit.memoryPercent} %`,
    ],
    ['QEMU', qemuVersion && `${qemuVersion}, ${accelerator}`],
    ['Can', status.capabilities?.join(', ')],
    ['Agent', agentVersion],
    ['Boot ID', status.bootId],
    [
      'Taints',
      taints.map((t) => `${t.key}${t.value ? `=${t.value}` : ''}:${t.effect}`).join(', ') || '<none>',
    ],
    ['Orphans', orphans > 0 ? `${orphans}: see 'plasmavmc orphans'` : undefined],
  ]
}

const seconds = (ms: number) => `${ms / 1000} s`

/** What the guard of a host promises in its lease, in words. */
function promised(lease: LeaseView): readonly Pair[] {
  const promise = promiseOf(lease)
  if (typeof promise === 'string') return [['Promise', `none that can be relied on: ${promise}`]]
  const { selfFence, deadlineMs, stopMs, peer, members, maintenance, agent } = promise
  const taken = lease.spec?.holderIdentity === fencedHolder
  const limits = `${seconds(deadlineMs)} after its last renewal, within ${seconds(stopMs)}`
  const how = { none: '', guard: ' by its guard', watchdog: ' by its guard, and by a hardware watchdog' }
  const words =
    selfFence === 'none'
      ? 'it stops no machine by itself when it is cut off'
      : `when it is cut off it stops its machines that fail over${how[selfFence]}, ${limits}`
  return [
    ['Promise', words],
    ['Guard', peer && (taken ? `answered at ${peer}` : `answers at ${peer}; its agent is ${agent}`)],
    ['Members', members.join(', ')],
    ['Says', maintenance && `in maintenance until ${maintenance}`],
  ]
}

function leaseOf(lease: LeaseView | undefined, host: HostView, io: Io): string {
  const { mode = 'none', command = [] } = host.spec?.fencing ?? {}
  const fencing: Pair = ['Fencing', `${mode}${mode === 'command' ? ` (${command[0] ?? 'no command'})` : ''}`]
  if (!lease) return pairLines([fencing, ['Lease', 'none: no guard watches over this host']], io)
  const { holderIdentity: holder, leaseTransitions: epoch, renewTime } = lease.spec ?? {}
  const by = holderHost(holder)
  const of = by === host.metadata.name ? '' : ' (not its own)'
  const held = `${holder ? `held by ${by}${of}` : 'given up'}, epoch ${epoch}, renewed ${ago(renewTime, io)}`
  const taken = `taken from it ${ago(renewTime, io)}, epoch ${epoch}`
  const lines = [fencing, ['Lease', holder === fencedHolder ? taken : held] as const, ...promised(lease)]
  return pairLines(lines, io)
}

function machinesOf(machines: readonly ObjectView[], io: Io): string {
  if (machines.length === 0) return 'Machines:       <none>\n'
  const rows = machines.map((vm) => [
    keyOf(vm),
    vm.status?.phase,
    ((vm.spec?.['recovery'] ?? {}) as { onHostLoss?: string }).onHostLoss ?? 'Manual',
    (vm.status?.['onHostLoss'] as string | undefined) ?? 'Manual',
    vm.status?.['placementEpoch'],
    vm.status?.message,
  ])
  const columns = ['Machine', 'Status', 'On loss', 'Now', 'Epoch', 'Message']
  const style = { out: io.stdout, env: io.env, wrap: true, indent: 2 }
  return `Machines:\n${renderTable({ columns, rows }, style).text}`
}

/** The last evidence about a host, in words. */
export function evidenceText(evidence: ObjectView, io: Io): string {
  const spec = evidence.spec ?? {}
  const at = spec['at'] as string | undefined
  return `${evidence.metadata.name}: ${spec['proof']}, ${ago(at, io)}, by ${spec['by']}: ${spec['seen']}`
}

/** What a host is, how it stands, what its guard promises, and which machines it has, for people. */
export async function describeHost(client: Client, host: HostView, io: Io): Promise<string> {
  const { name } = host.metadata
  const [lease, vms, evidence] = await Promise.all([
    getLease(client, name),
    listAll(client, 'vms'),
    listAll(client, 'fenceevidences'),
  ])
  const epochOf = ({ spec }: ObjectView) => Number(spec?.['epoch'] ?? 0)
  const last = evidence.items
    .filter(({ spec }) => spec?.['host'] === name)
    .toSorted((a, b) => epochOf(a) - epochOf(b))
    .at(-1)
  return [
    pairLines(await stateOf(host, io), io),
    leaseOf(lease, host, io),
    pairLines([['Last evidence', last && evidenceText(last, io)]], io),
    machinesOf(
      vms.items.filter((vm) => placeOf(vm) === name),
      io,
    ),
  ].join('')
}
