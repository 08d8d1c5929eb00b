import { PlasmaError } from '../lib/errors.ts'
import type { KubeObject, ResourceDefinition } from '../resources/define.ts'
import { Host } from '../resources/host.ts'
import { findKind, StoragePool } from '../resources/kinds.ts'
import { parse } from '../resources/parse.ts'
import { formatQuantity } from '../resources/quantity.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { keyOf } from '../runtime/informer.ts'
import { Faults } from './faults.ts'
import type { HostParts } from './parts.ts'
import { World } from './world.ts'

/** What becomes of one machine. */
export interface Fate {
  readonly machine: string
  readonly from: string | undefined
  readonly to: string | undefined
  /** Phase and reason, in words, as its status would show them. */
  readonly status: string
  readonly message: string
  /** From the loss of its host until its guest runs again, ms; undefined where it does not. */
  readonly afterMs?: number
}

export interface Answer {
  /** Machines whose host was lost. */
  readonly moved: readonly Fate[]
  readonly stuck: readonly Fate[]
  /** Machines that did not come up even before, as the dump has them. */
  readonly troubled: readonly Fate[]
  readonly untouched: number
}

/** How long the copy of a cluster may take to start, and to deal with the loss, ms. */
const acquaintMs = 20_000
const startMs = 60_000
const dealMs = 180_000

interface Dump {
  readonly hosts: readonly Host[]
  readonly pools: readonly StoragePool[]
  readonly vms: readonly VirtualMachine[]
}

/**
 * Reads what a simulation needs of dumped objects, lists among them; kinds that it does not need are passed over.
 * @throws PlasmaError `BadDump` that names the object and the field
 */
export function dumpOf(documents: readonly unknown[]): Dump {
  const objects = documents.flatMap((one) => {
    const list = one as { kind?: unknown; items?: unknown[] } | null
    return list && Array.isArray(list.items) ? list.items : [one]
  }) as (Partial<KubeObject> | null)[]
  const of = <T extends KubeObject>(kind: ResourceDefinition<T>): T[] =>
    objects.flatMap((object) => {
      if (!object || findKind(String(object.kind)) !== (kind as unknown)) return []
      const parsed = parse(kind, object)
      if (parsed.ok) return [parsed.object]
      const { field, message } = parsed.causes[0] ?? { field: '', message: 'invalid' }
      throw new PlasmaError('BadDump', `${kind.kind} ${object.metadata?.name}: ${field}: ${message}`)
    })
  const dump = { hosts: of(Host), pools: of(StoragePool), vms: of(VirtualMachine) }
  if (dump.hosts.length > 0) return dump
  throw new PlasmaError('BadDump', 'there is no Host in what was given', {
    hint: "make it with 'plasmavmc get hosts,vms,storagepools -A -o yaml'",
  })
}

const isReady = ({ status }: Host) =>
  status?.conditions.find(({ type }) => type === 'Ready')?.status !== 'False' && status !== undefined

/** A world with the hosts and machines of a dump, each where the dump has it. */
async function worldOf(
  { hosts, pools, vms }: Dump,
  parts: HostParts,
  tell?: (line: string) => void,
): Promise<World> {
  const facts = hosts.map(({ metadata, status }) => ({
    name: metadata.name,
    ...{
      labels: metadata.labels ?? {},
      cpus: status?.cpus ?? 8,
      memory: status?.memory ?? formatQuantity(2 ** 34),
    },
  }))
  const world = new World({ seed: 1, hosts: facts, parts, ...(tell && { tell }) })
  const { objects } = world
  const fresh = <T extends KubeObject>({ metadata, ...rest }: T): T => {
    const { name, namespace, uid, labels, annotations, creationTimestamp } = metadata
    const kept = { name, ...(namespace !== undefined && { namespace }), ...(uid !== undefined && { uid }) }
    return {
      ...rest,
      metadata: {
        ...kept,
        ...(labels && { labels }),
        ...(annotations && { annotations }),
        creationTimestamp,
      },
    } as unknown as T
  }
  for (const pool of pools) await objects.create(StoragePool, fresh(pool))
  for (const host of hosts) {
    const made = await objects.create(Host, fresh(host))
    const { cpus, memory } = host.status ?? {}
    if (cpus !== undefined && memory !== undefined)
      await objects.updateStatus(Host, {
        ...made,
        status: { addresses: [], capabilities: [], orphans: [], conditions: [], cpus, memory },
      })
  }
  const shared = new Set(pools.filter(({ spec }) => spec.shared).map(({ metadata }) => metadata.name))
  for (const vm of vms) {
    const made = await objects.create(VirtualMachine, fresh(vm), { restoreUid: true })
    const { hostName, disks = [], power } = vm.status ?? {}
    if (hostName === undefined || !world.hosts.has(hostName)) continue
    await objects.updateStatus(VirtualMachine, {
      ...made,
      status: {
        hostName,
        placementEpoch: 1,
        restarts: 0,
        networks: [],
        conditions: [],
        disks,
        ...(power && { power }),
      },
    })
    for (const { name, pool } of vm.spec.disks)
      (shared.has(pool) ? world.disks.files : world.host(hostName).disks).add(`${made.metadata.uid}/${name}`)
  }
  await world.begin()
  for (const host of hosts) if (!isReady(host)) world.host(host.metadata.name).powerOff()
  return world
}

/** Says what would become of a cluster's machines if hosts were lost, by losing them in a copy of it. */
export async function whatIf(
  dump: Dump,
  kill: readonly string[],
  parts: HostParts,
  tell?: (line: string) => void,
): Promise<Answer> {
  const names = dump.hosts.map(({ metadata }) => metadata.name)
  const unknown = kill.find((name) => !names.includes(name))
  if (unknown !== undefined)
    throw new PlasmaError('NotFound', `--kill: there is no host "${unknown}" in the dump`, {
      hint: `there are: ${names.join(', ')}`,
    })
  const world = await worldOf(dump, parts, tell)
  // Until every lease names every host: those are the ones that are asked.
  await world.run(acquaintMs)
  await world.run(
    startMs,
    everySecond(world, () => world.rules.unsettled() === undefined),
  )
  const before = new Map([...world.rules.vms.values()].map((vm) => [keyOf(vm), vm]))
  const troubled = [...before.values()]
    .filter((vm) => !runsWell(world, vm))
    .map((vm) => fateOf(vm, vm.status?.hostName))
  const at = world.timeline.now
  const faults = new Faults(world)
  for (const host of kill) faults.apply({ kind: 'power', host })
  const lost = [...before].filter(([, vm]) => kill.includes(vm.status?.hostName ?? '')).map(([key]) => key)
  const back = new Map<string, number>()
  await world.run(
    at + dealMs,
    everySecond(world, () => {
      for (const key of lost) {
        const vm = machine(world, key)
        if (vm && !back.has(key) && runsWell(world, vm)) back.set(key, world.timeline.now - at)
      }
      return back.size === lost.length
    }),
  )
  const fates = lost.flatMap((key) => {
    const vm = machine(world, key)
    const afterMs = back.get(key)
    return vm
      ? [{ ...fateOf(vm, before.get(key)?.status?.hostName), ...(afterMs !== undefined && { afterMs }) }]
      : []
  })
  return {
    moved: fates.filter(({ afterMs }) => afterMs !== undefined),
    stuck: fates.filter(({ afterMs }) => afterMs === undefined),
    troubled,
    untouched: before.size - lost.length,
  }
}

function everySecond(world: World, test: () => boolean): () => boolean {
  let next = world.timeline.now + 1_000
  return () => {
    if (world.timeline.now < next) return false
    next = world.timeline.now + 1_000
    return test()
  }
}

const machine = (world: World, key: string) => [...world.rules.vms.values()].find((vm) => keyOf(vm) === key)

function runsWell(world: World, vm: VirtualMachine): boolean {
  const { phase, hostName } = vm.status ?? {}
  const running = world.rules.runners(vm.metadata.uid ?? '')
  const wanted = (vm.spec.runStrategy ?? 'Always') !== 'Halted'
  return !wanted || (phase === 'Running' && running.length === 1 && running[0]?.name === hostName)
}

function fateOf(vm: VirtualMachine, from: string | undefined): Fate {
  const { phase = 'Pending', reason, message = '', hostName } = vm.status ?? {}
  const status = reason === undefined || reason === phase ? phase : `${phase} (${reason})`
  return { machine: keyOf(vm), from, to: hostName, status, message }
}
