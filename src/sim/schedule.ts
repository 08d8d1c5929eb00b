import { hostIdAnnotation } from '../controllers/host/register.ts'
import { apiVersionOf } from '../resources/define.ts'
import { Host, hostSpec } from '../resources/host.ts'
import { hostLeaseName, leaseAnnotations, systemNamespace } from '../resources/host-lease.ts'
import { Lease, StoragePool } from '../resources/kinds.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { Faults, type Timed, words } from './faults.ts'
import { hostIdOf } from './guard.ts'
import type { HostParts } from './parts.ts'
import { Violation } from './rules.ts'
import { World } from './world.ts'

export interface MachineFacts {
  readonly name: string
  readonly onHostLoss: 'Manual' | 'Failover'
  /** When it is created, ms; before any host is up where it is absent, so that it runs on the one that is up first. */
  readonly at?: number
}

/** One run of a world, as data: the same schedule goes the same way each time. */
export interface Schedule {
  readonly seed: number
  readonly hosts: readonly string[]
  readonly fencing: Host['spec']['fencing']['mode']
  readonly machines: readonly MachineFacts[]
  readonly faults: readonly Timed[]
  /** When all faults end, ms. */
  readonly healAt: number
}

/** How long a world may take to come to rest once nothing is wrong any more, ms: longer than every back-off it may meet. */
const restMs = 400_000
/** It counts as at rest when it was so for this long, ms. */
const calmMs = 1_500

export interface Played {
  readonly world: World
  readonly violation?: Violation
}

/** Plays a schedule to its end. @returns the world, and the rule that did not hold, if any */
export async function play(
  schedule: Schedule,
  parts: HostParts,
  options: { readonly tell?: (line: string) => void; readonly verbose?: boolean } = {},
): Promise<Played> {
  const { seed, hosts, healAt } = schedule
  const world = new World({ seed, hosts: hosts.map((name) => ({ name })), parts, ...options })
  if (schedule.fencing === 'none') for (const host of world.hosts.values()) host.selfFence = 'none'
  const faults = new Faults(world)
  try {
    await populate(world, schedule)
    faults.schedule(schedule.faults)
    await world.run(healAt)
    faults.heal()
    await rest(world, healAt)
    return { world }
  } catch (error) {
    if (error instanceof Violation) return { world, violation: error }
    throw error
  }
}

async function populate(world: World, { hosts, fencing, machines }: Schedule): Promise<void> {
  const { objects } = world
  await objects.create(StoragePool, {
    ...{ apiVersion: apiVersionOf(StoragePool), kind: 'StoragePool', metadata: { name: 'default' } },
    spec: { path: '/pool', shared: true },
  })
  for (const name of hosts)
    await objects.create(Host, {
      ...{ apiVersion: apiVersionOf(Host), kind: 'Host' },
      metadata: { name, annotations: { [hostIdAnnotation]: hostIdOf({ name }) } },
      spec: hostSpec.parse({ fencing: { mode: fencing, command: ['fence', name] } }),
    })
  for (const name of hosts) await objects.create(Lease, restingLease(name, hosts))
  await world.begin()
  for (const machine of machines) {
    const create = () => objects.create(VirtualMachine, manifestOf(machine))
    if (machine.at === undefined) await create()
    else world.timeline.at(machine.at, () => void create())
  }
}

function manifestOf({ name, onHostLoss }: MachineFacts): VirtualMachine {
  const spec = {
    ...{ disks: [{ name: 'root', size: '1Gi' }], terminationGracePeriodSeconds: 5 },
    recovery: { onHostLoss },
  }
  return {
    apiVersion: apiVersionOf(VirtualMachine),
    kind: 'VirtualMachine',
    metadata: { name, namespace: 'default' },
    ...VirtualMachine.body.parse({ spec }),
  } as VirtualMachine
}

/** The lease of a host that was shut down in order: nobody holds it, and all know one another from the first second on. */
function restingLease(name: string, members: readonly string[]): Lease {
  const facts = { deadlineMs: 6_000, stopMs: 2_500, selfFence: 'guard', agent: 'alive', bootId: '' } as const
  return {
    ...{ apiVersion: apiVersionOf(Lease), kind: 'Lease' },
    metadata: {
      ...{ name: hostLeaseName(name), namespace: systemNamespace },
      annotations: leaseAnnotations({ ...facts, peer: `${name}:7444`, members }),
    },
    spec: { leaseTransitions: 0 },
  }
}

/** Everything has to be as it should before long, and to stay so for a moment. */
async function rest(world: World, from: number): Promise<void> {
  let since: number | undefined
  const { timeline, rules } = world
  let checkedAt = -1
  await world.run(from + restMs, () => {
    if (timeline.now - checkedAt < 100) return false
    checkedAt = timeline.now
    if (rules.unsettled() !== undefined) since = undefined
    else since ??= timeline.now
    return since !== undefined && timeline.now - since >= calmMs
  })
  const why = rules.unsettled()
  if (why !== undefined)
    throw new Violation('Converges', `${why}, ${restMs / 1000} s after all faults ended`, timeline.now)
}

const inWords = ({ name, onHostLoss, at }: MachineFacts) =>
  `${name} (${onHostLoss}${at === undefined ? '' : `, from ${(at / 1000).toFixed(3)} s`})`

/** A schedule in lines that can be read. */
export function describe({ seed, hosts, fencing, machines, faults, healAt }: Schedule): string {
  const lines = faults.map((timed) => {
    const when =
      'at' in timed
        ? `${(timed.at / 1000).toFixed(3)} s`
        : `from ${(timed.after / 1000).toFixed(3)} s, ${timed.phase} of ${timed.op} ${timed.key} by ${timed.by}, no. ${timed.nth}`
    return `  ${when}: ${words(timed.fault)}`
  })
  return [
    `seed ${seed}: ${hosts.length} hosts, fencing ${fencing}, machines ${machines.map(inWords).join(', ')}`,
    ...lines,
    `  ${(healAt / 1000).toFixed(3)} s: all faults end`,
  ].join('\n')
}
