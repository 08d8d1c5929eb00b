import { type LocalDisk, localDisks } from '../../resources/disk-reach.ts'
import type { Host, StoragePool } from '../../resources/kinds.ts'
import { approximateQuantity, formatQuantity } from '../../resources/quantity.ts'
import type { VirtualMachine } from '../../resources/vm.ts'
import { keyOf } from '../../runtime/informer.ts'
import type { Company } from './company.ts'
import { type Crowd, crowdOf, type Spread } from './crowd.ts'
import { type Labels, Residents } from './residents.ts'
import { type Room, roomOf, shareOf } from './room.ts'

/** Why a machine can't be on a host: a word for the kind of it, and words that name the field and the host's value. */
export interface Refusal {
  readonly kind:
    | 'NotReady'
    | 'Lease'
    | 'Cordoned'
    | 'Maintenance'
    | 'Taint'
    | 'HostSelector'
    | 'Accelerator'
    | 'Disks'
    | 'Cpu'
    | 'Memory'
    | 'Together'
    | 'Apart'
    | 'Spread'
  /** Put into words only when it is read: of thousands of machines on hundreds of hosts few are. */
  readonly message: string
}

type Spec = VirtualMachine['spec']

/** What is asked of a host, whoever else is there: machines with the same demand are refused alike. Plain data. */
export interface Demand extends Pick<Spec, 'hostSelector' | 'tolerations' | 'accelerator'> {
  readonly cpus: number
  /** Bytes. */
  readonly memory: number
  /** Disks that exist and that only `disksHost` reaches. */
  readonly local: readonly LocalDisk[]
  readonly disksHost: string | undefined
  /** It is being deleted: it will not run, and needs a host only that removes what there is of it. */
  readonly removal: boolean
}

/** All that is asked, worked out once for all hosts. */
export interface Needs {
  readonly vm: VirtualMachine
  readonly demand: Demand
}

type Why = Refusal | undefined
type Taint = Host['spec']['taints'][number]

export function needsOf(vm: VirtualMachine, pools: readonly StoragePool[]): Needs {
  const { hostSelector, tolerations, accelerator } = vm.spec
  const demand = {
    ...{ hostSelector, tolerations, accelerator, ...shareOf(vm) },
    ...{ local: localDisks(vm, pools), disksHost: vm.status?.disksHost },
    removal: vm.metadata.deletionTimestamp !== undefined,
  }
  return { vm, demand }
}

function no(kind: Refusal['kind'], say: () => string): Refusal {
  return {
    kind,
    get message() {
      return say()
    },
  }
}

/** `a=b,c=d` */
export function wordsOf(labels: Labels): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .sort()
    .join(',')
}

function notReady({ host }: Room): Why {
  const ready = host.status?.conditions.find(({ type }) => type === 'Ready')
  if (ready?.status === 'True') return undefined
  if (!ready) return no('NotReady', () => 'not Ready: it has not reported yet')
  return no('NotReady', () => `not Ready: condition Ready is ${ready.status}, ${ready.reason}`)
}

function leaseless({ epoch, leaseProblem }: Room): Why {
  return epoch === undefined ? no('Lease', () => leaseProblem) : undefined
}

function cordoned({ host }: Room): Why {
  return host.spec.unschedulable ? no('Cordoned', () => 'cordoned (spec.unschedulable)') : undefined
}

function maintained({ maintenance }: Room): Why {
  return maintenance === undefined
    ? undefined
    : no('Maintenance', () => `under maintenance until ${maintenance} (spec.maintenance)`)
}

/** Whether a machine puts up with a taint. */
export function tolerates({ tolerations }: Pick<Spec, 'tolerations'>, taint: Taint): boolean {
  return tolerations.some(
    ({ key, value, effect }) =>
      (key === undefined || key === taint.key) &&
      (value === undefined || value === taint.value) &&
      (effect === undefined || effect === taint.effect),
  )
}

function tainted(demand: Demand, { host }: Room): Why {
  const taint = host.spec.taints.find((one) => one.effect === 'NoSchedule' && !tolerates(demand, one))
  if (!taint) return undefined
  const { key, value, effect } = taint
  const word = value === '' ? key : `${key}=${value}`
  return no('Taint', () => `taint ${word}:${effect} is not among spec.tolerations`)
}

function unselected({ hostSelector }: Demand, { labels }: Room): Why {
  for (const [key, value] of Object.entries(hostSelector)) {
    const has = Object.hasOwn(labels, key) ? labels[key] : undefined
    if (has === value) continue
    const found = has === undefined ? `no label ${key}` : `${key}=${has}`
    return no('HostSelector', () => `spec.hostSelector wants ${key}=${value}, it has ${found}`)
  }
  return undefined
}

function slower({ accelerator }: Demand, { host }: Room): Why {
  const has = host.status?.accelerator
  if (accelerator !== 'kvm' || has === 'kvm') return undefined
  return no('Accelerator', () => `spec.accelerator is kvm, it has ${has ?? 'none'}`)
}

function outOfReach({ local, disksHost: at }: Demand, { name }: Room): Why {
  const [first] = local
  if (!first || at === name) return undefined
  if (at === undefined)
    return no('Disks', () => `${first.field}: no status.disksHost says on which host disk ${first.name} is`)
  return no('Disks', () => `${first.field}: disk ${first.name} is on host ${at} alone`)
}

function noProcessors({ cpus }: Demand, { capacity, taken }: Room): Why {
  if (!capacity) return no('Cpu', () => 'cpu: it has not said what it has (status.cpus, status.memory)')
  const free = Math.max(0, capacity.cpus - taken.cpus)
  return cpus <= free ? undefined : no('Cpu', () => `cpu: ${cpus} wanted, ${free} free of ${capacity.cpus}`)
}

function noMemory({ memory }: Demand, { capacity, taken }: Room): Why {
  if (!capacity) return undefined
  const free = Math.max(0, capacity.memory - taken.memory)
  if (memory <= free) return undefined
  return no('Memory', () => memoryWords(memory, free, capacity.memory))
}

/** Of a host that counts what nobody has: how much is free says nothing there. */
function moreThanAll({ memory }: Demand, { memory: all }: NonNullable<Room['capacity']>): Why {
  if (memory <= all) return undefined
  return no('Memory', () => {
    const words = wordsFor(memory, all)
    return `memory: ${words(memory)} wanted, the host offers ${words(all)} in all`
  })
}

/** Rounded, unless both would look the same then. */
function wordsFor(wanted: number, has: number): (bytes: number) => string {
  return approximateQuantity(wanted) !== approximateQuantity(has) ? approximateQuantity : formatQuantity
}

function memoryWords(memory: number, free: number, all: number): string {
  const words = wordsFor(memory, free)
  return `memory: ${words(memory)} wanted, ${words(free)} free of ${words(all)}`
}

function alone({ vm }: Needs, { name }: Room, { founds, together }: Crowd): Why {
  for (const [index, { labels, required }] of vm.spec.affinity.together.entries()) {
    if (required && !founds.has(index) && !together[index]?.has(name))
      return no('Together', () => `affinity.together: no machine with ${wordsOf(labels)} is there`)
  }
  return undefined
}

function tooClose({ vm }: Needs, { name }: Room, { apart, shy }: Crowd): Why {
  for (const [index, { labels, required }] of vm.spec.affinity.apart.entries()) {
    const [other] = (required && apart[index]?.get(name)) || []
    if (other) return no('Apart', () => `affinity.apart: ${keyOf(other.vm)} with ${wordsOf(labels)} is there`)
  }
  const other = shy.get(name)?.find(({ term }) => term.required)
  if (!other) return undefined
  const { vm: there, term } = other
  return no('Apart', () => `affinity.apart of ${keyOf(there)}, which is there: ${wordsOf(term.labels)}`)
}

function spreadWords({ topologyKey, labels, maxSkew }: Spread['term'], place: string, skew: number): string {
  const more = `${skew} more with ${wordsOf(labels)} than another place`
  return `spread: ${topologyKey}=${place} would have ${more}, at most ${maxSkew}`
}

function uneven(room: Room, { spreads }: Crowd): Why {
  for (const { term, counts, least } of spreads) {
    if (!term.required) continue
    const place = room.labels[term.topologyKey]
    if (place === undefined) return no('Spread', () => `spread: it has no label ${term.topologyKey}`)
    const skew = (counts.get(place) ?? 0) + 1 - least
    if (skew > term.maxSkew) return no('Spread', () => spreadWords(term, place, skew))
  }
  return undefined
}

/** Why the host as such is none for it, whoever else is there. */
export function hostRefusal(demand: Demand, room: Room): Refusal | undefined {
  const gone = notReady(room) ?? leaseless(room)
  if (gone || demand.removal) return gone ?? outOfReach(demand, room)
  return cordoned(room) ?? maintained(room) ?? unsuited(demand, room) ?? outOfReach(demand, room)
}

function unsuited(demand: Demand, room: Room): Why {
  return tainted(demand, room) ?? unselected(demand, room) ?? slower(demand, room)
}

/** Why what others have there leaves too little for it. */
export function shareRefusal(demand: Demand, room: Room): Refusal | undefined {
  return demand.removal ? undefined : (noProcessors(demand, room) ?? noMemory(demand, room))
}

/** Why it is none because of who is there, or elsewhere. */
export function crowdRefusal(needs: Needs, room: Room, crowd: Crowd): Refusal | undefined {
  if (needs.demand.removal) return undefined
  return alone(needs, room, crowd) ?? tooClose(needs, room, crowd) ?? uneven(room, crowd)
}

/** Why a machine can't be on a host, or undefined where it can. */
export function misfit(needs: Needs, room: Room, crowd: Crowd): Refusal | undefined {
  const { demand } = needs
  return hostRefusal(demand, room) ?? shareRefusal(demand, room) ?? crowdRefusal(needs, room, crowd)
}

/**
 * The same for a host that is the only one and places machines on itself, as with an embedded store: cordon, taints,
 * hostSelector, accelerator and affinity. What others have counts for nothing: there is no better place, and who has one
 * host knows best how many machines are too many. Only one that wants more memory than there is at all is refused. To
 * be asked once, when a machine has no host yet: what is there stays.
 * @param others the machines that are on the host
 */
export function refusal(vm: VirtualMachine, host: Host, others: Company): string | undefined {
  const room = roomOf(host, { machines: [], now: 0 })
  const needs = needsOf(vm, [])
  const full = room.capacity && moreThanAll(needs.demand, room.capacity)
  return (cordoned(room) ?? unsuited(needs.demand, room) ?? full ?? unwelcome(needs, room, others))?.message
}

/** Why those who are there keep it away. */
function unwelcome(needs: Needs, room: Room, others: Company): Why {
  const { vm } = needs
  const { together, apart } = vm.spec.affinity
  const residents = new Residents()
  for (const one of together.length + apart.length > 0 ? others.all() : others.shy())
    residents.add(one, room.name)
  const crowd = crowdOf(vm, residents, [room], [room])
  return alone(needs, room, crowd) ?? tooClose(needs, room, crowd)
}
