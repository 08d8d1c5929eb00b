import type { Placement, World } from '../../../src/controllers/placement/plan.ts'
import type { Host } from '../../../src/resources/kinds.ts'
import { bytesOf } from '../../../src/resources/quantity.ts'
import type { VirtualMachine } from '../../../src/resources/vm.ts'

type Where = ReadonlyMap<VirtualMachine, string>
type Labels = Readonly<Record<string, string>>

const nameOf = (host: Host) => host.metadata.name
const keyOf = (vm: VirtualMachine) => `${vm.metadata.namespace}/${vm.metadata.name}`
const vcpus = ({ spec: { cpu } }: VirtualMachine) => cpu.cores * cpu.sockets * cpu.threads

const means = (vm: VirtualMachine, other: VirtualMachine, labels: Labels) =>
  vm !== other &&
  vm.metadata.namespace === other.metadata.namespace &&
  Object.entries(labels).every(([key, value]) => other.metadata.labels?.[key] === value)

const labelOf = (host: Host, key: string) =>
  key === 'kubernetes.io/hostname' ? nameOf(host) : host.metadata.labels?.[key]

const on = (where: Where, host: string) => [...where].filter(([, at]) => at === host).map(([vm]) => vm)

/** The rules for a host by itself, said once more and in other words than the code under test. */
function isOpen(vm: VirtualMachine, host: Host, { leases }: World): boolean {
  const name = nameOf(host)
  return [
    host.status?.conditions.some(({ type, status }) => type === 'Ready' && status === 'True'),
    leases.get(`host-${name}`)?.spec.holderIdentity === name,
    !host.spec.unschedulable,
    host.spec.taints.every(
      ({ key, effect }) => effect !== 'NoSchedule' || vm.spec.tolerations.some((one) => one.key === key),
    ),
    Object.entries(vm.spec.hostSelector).every(([key, value]) => labelOf(host, key) === value),
    vm.spec.disks.length === 0 || vm.status?.disksHost === undefined || vm.status.disksHost === name,
  ].every(Boolean)
}

function fitsIn(vm: VirtualMachine, host: Host, where: Where): boolean {
  const all = [...on(where, nameOf(host)), vm]
  const { overcommit } = host.spec
  const cpus = all.reduce((sum, one) => sum + vcpus(one), 0)
  const bytes = all.reduce((sum, one) => sum + bytesOf(one.spec.memory), 0)
  return (
    cpus * 100 <= (host.status?.cpus ?? 0) * overcommit.cpuPercent &&
    bytes * 100 <= bytesOf(host.status?.memory ?? 0) * overcommit.memoryPercent
  )
}

/** Whether one of the two has to keep away from the other. */
export const repel = (a: VirtualMachine, b: VirtualMachine) =>
  [
    [a, b],
    [b, a],
  ].some(([x, y]) => x!.spec.affinity.apart.some((one) => one.required && means(x!, y!, one.labels)))

function isWelcome(vm: VirtualMachine, host: Host, where: Where): boolean {
  const here = on(where, nameOf(host))
  const together = vm.spec.affinity.together.every(({ labels, required }) => {
    if (!required || here.some((other) => means(vm, other, labels))) return true
    const begun = [...where.keys()].some((other) => means(vm, other, labels))
    const own = Object.entries(labels).every(([key, value]) => vm.metadata.labels?.[key] === value)
    return own && !begun
  })
  return together && !here.some((other) => repel(vm, other))
}

function isEven(vm: VirtualMachine, host: Host, where: Where, world: World): boolean {
  return vm.spec.spread.every(({ labels, topologyKey, maxSkew, required }) => {
    if (!required) return true
    const place = labelOf(host, topologyKey)
    if (place === undefined) return false
    const count = (value: string) =>
      [...where].filter(([other, at]) => {
        const its = world.hosts.find((one) => nameOf(one) === at)
        return its && labelOf(its, topologyKey) === value && means(vm, other, labels)
      }).length
    const places = world.hosts
      .filter((one) => isOpen(vm, one, world))
      .flatMap((one) => labelOf(one, topologyKey) ?? [])
    return count(place) + 1 - Math.min(...places.map(count)) <= maxSkew
  })
}

function allowed(vm: VirtualMachine, host: Host, where: Where, world: World): boolean {
  return (
    isOpen(vm, host, world) &&
    fitsIn(vm, host, where) &&
    isWelcome(vm, host, where) &&
    isEven(vm, host, where, world)
  )
}

function turnsOf(world: World): VirtualMachine[] {
  const age = (vm: VirtualMachine) => Date.parse(vm.metadata.creationTimestamp ?? '')
  return world.machines
    .filter(({ status }) => status?.hostName === undefined)
    .sort((a, b) => b.spec.priority - a.spec.priority || age(a) - age(b) || (keyOf(a) < keyOf(b) ? -1 : 1))
}

/**
 * What is wrong with a placement, or undefined: machines taken in turn, each must have been given a host that was
 * allowed then, or none where none was.
 */
export function wrongIn(placement: Placement, world: World): string | undefined {
  const where = new Map(
    // What is on a host that is no more is nowhere.
    world.machines.flatMap((vm) =>
      world.hosts.some((host) => nameOf(host) === vm.status?.hostName)
        ? [[vm, vm.status?.hostName as string] as const]
        : [],
    ),
  )
  const given = new Map(placement.assignments.map(({ vm, host }) => [vm, host]))
  for (const vm of given.keys()) if (vm.status?.hostName) return `${keyOf(vm)} had a host and was moved`
  for (const vm of turnsOf(world)) {
    const name = given.get(vm)
    const good = world.hosts.filter((host) => allowed(vm, host, where, world)).map(nameOf)
    if (name === undefined && good.length > 0) return `${keyOf(vm)} fits on ${good.join()} and is left over`
    if (name !== undefined && !good.includes(name))
      return `${keyOf(vm)} is put on ${name}, and fits on ${good.join() || 'none'}`
    if (name !== undefined) where.set(vm, name)
  }
  return undefined
}
