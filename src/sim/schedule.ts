import { hostIdAnnotation } from '../controllers/host/register.ts'
import { apiVersionOf } from '../resources/define.ts'
import { Host, hostSpec } from '../resources/host.ts'
import { hostLeaseName, leaseAnnotations, systemNamespace } from '../resources/host-lease.ts'
import { Lease, StoragePool } from '../resources/kinds.ts'
import { VirtualMachine } from '../resources/vm.ts'
import { Faults, setRunStrategy, type Timed, words } from './faults.ts'
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

/** What goes wrong between two rests of a world. Its times are ms from its beginning. */
export interface Schedule {
  readonly seed: number
  /** Those of the schedule before that are not among them are deleted as it begins. */
  readonly machines: readonly MachineFacts[]
  readonly faults: readonly Timed[]
  /** When all faults end, ms. */
  readonly healAt: number
}

/**
 * Schedules that follow one another in one world, as data: each begins where the one before came to rest. The same
 * course goes the same way each time.
 */
export interface Course {
  readonly seed: number
  readonly hosts: readonly string[]
  readonly fencing: Host['spec']['fencing']['mode']
  readonly schedules: readonly Schedule[]
}

/** How long a world may take to come to rest once nothing is wrong any more, ms: longer than every back-off it may meet. */
const restMs = 400_000
/** It counts as at rest when it was so for this long, ms. */
const calmMs = 1_500

export interface Played {
  readonly world: World
  /** Schedules that came to rest with every rule kept. */
  readonly played: number
  /** The rule that the next one broke, if any. */
  readonly violation?: Violation
}

export interface PlayOptions {
  readonly tell?: (line: string) => void
  readonly verbose?: boolean
  /** Told after each schedule. */
  readonly onPlayed?: (() => void) | undefined
}

/** Plays the schedules of a course, until a rule does not hold. */
export async function play(course: Course, parts: HostParts, options: PlayOptions = {}): Promise<Played> {
  const { seed, hosts, fencing, schedules } = course
  const { onPlayed, ...told } = options
  const world = new World({ seed, hosts: hosts.map((name) => ({ name })), parts, ...told })
  if (fencing === 'none') for (const host of world.hosts.values()) host.selfFence = 'none'
  const faults = new Faults(world)
  let played = 0
  try {
    await populate(world, course)
    for (const schedule of schedules) {
      await playOne(world, schedule, faults)
      played += 1
      onPlayed?.()
    }
    return { world, played }
  } catch (error) {
    if (error instanceof Violation) return { world, played, violation: error }
    throw error
  }
}

async function playOne(world: World, schedule: Schedule, faults: Faults): Promise<void> {
  const { timeline } = world
  const from = timeline.now
  world.tell(`the schedule of seed ${schedule.seed} begins`)
  // A fence command has switched them off, or they stood still in the schedule before.
  for (const host of world.hosts.values()) {
    world.boot(host)
    host.resumed = undefined
  }
  await declare(world, schedule.machines)
  faults.schedule(schedule.faults)
  await world.run(from + schedule.healAt)
  faults.heal()
  await rest(world, from + schedule.healAt)
}

async function populate(world: World, { hosts, fencing }: Course): Promise<void> {
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
}

/** What a person wants from now on: these machines, up, and no others. */
async function declare(world: World, machines: readonly MachineFacts[]): Promise<void> {
  const { objects, timeline, rules } = world
  const there = new Map([...rules.vms.values()].map((vm) => [vm.metadata.name, vm]))
  for (const [name, { metadata, spec }] of there) {
    const wanted = machines.some((machine) => machine.name === name)
    const ref = { namespace: 'default', name }
    if (metadata.deletionTimestamp !== undefined) continue
    if (!wanted) await objects.delete(VirtualMachine, ref)
    else if (spec.runStrategy === 'Halted') await setRunStrategy(objects, name, 'Always')
  }
  for (const machine of machines.filter(({ name }) => !there.has(name))) {
    const create = () => objects.create(VirtualMachine, manifestOf(machine))
    if (machine.at === undefined) await create()
    else timeline.after(machine.at, () => void create())
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

function faultLine(timed: Timed): string {
  const when =
    'at' in timed
      ? `${(timed.at / 1000).toFixed(3)} s`
      : `from ${(timed.after / 1000).toFixed(3)} s, ${timed.phase} of ${timed.op} ${timed.key} by ${timed.by}, no. ${timed.nth}`
  return `  ${when}: ${words(timed.fault)}`
}

/** A course in lines that can be read. Times are from the beginning of each schedule. */
export function describe({ seed, hosts, fencing, schedules }: Course): string {
  const lines = schedules.flatMap((schedule) => [
    `the schedule of seed ${schedule.seed}: machines ${schedule.machines.map(inWords).join(', ')}`,
    ...schedule.faults.map(faultLine),
    `  ${(schedule.healAt / 1000).toFixed(3)} s: all faults end`,
  ])
  return [`the world of seed ${seed}: ${hosts.length} hosts, fencing ${fencing}`, ...lines].join('\n')
}
