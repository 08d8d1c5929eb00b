import { isDeepStrictEqual } from 'node:util'
import { wantedBytes } from '../../host/disk-layout.ts'
import { diskDeviceId } from '../../host/qemu-disks.ts'
import { type Forward, forwardRule, networkIds } from '../../host/qemu-networks.ts'
import { bytesOf } from '../../resources/quantity.ts'
import type { VmDisk, VmNetwork, VmSpec } from '../../resources/vm.ts'
import { placementMembers } from '../../resources/vm-placement.ts'
import type { MachineFacts } from './machine-facts.ts'

type WatchdogAction = NonNullable<VmSpec['devices']['watchdog']>['action']

/** One difference between a running QEMU and its spec that can be made while the guest runs. */
export type LiveChange =
  /** Members that QEMU never sees: only noted. */
  | { readonly kind: 'policy' }
  | { readonly kind: 'watchdog'; readonly action: WatchdogAction }
  | { readonly kind: 'growDisk'; readonly disk: VmDisk; readonly bytes: number }
  | { readonly kind: 'addDisk'; readonly disk: VmDisk }
  | { readonly kind: 'removeDisk'; readonly disk: VmDisk }
  | { readonly kind: 'addForward' | 'removeForward'; readonly network: string; readonly forward: Forward }
  | { readonly kind: 'addNetwork' | 'removeNetwork'; readonly network: VmNetwork }

export interface SpecDiff {
  readonly changes: readonly LiveChange[]
  /** Paths of the members that take effect at the next start only. */
  readonly restart: readonly string[]
  /** What will never be done as asked, in words that name the member. */
  readonly refused: readonly string[]
}

/** Collects a diff while it is made. */
interface Found {
  readonly changes: LiveChange[]
  readonly restart: string[]
  readonly refused: string[]
}

type Named = { readonly name: string }

const policyMembers = ['runStrategy', 'terminationGracePeriodSeconds', ...placementMembers] as const

/** A change in words, and its name among others. */
export function wordsOf(change: LiveChange): string {
  switch (change.kind) {
    case 'policy':
      return 'policy'
    case 'watchdog':
      return `watchdog action ${change.action}`
    case 'growDisk':
      return `growth of disk ${change.disk.name}`
    case 'addDisk':
      return `new disk ${change.disk.name}`
    case 'removeDisk':
      return `removal of disk ${change.disk.name}`
    case 'addForward':
      return `forward ${forwardRule(change.forward)} of network ${change.network}`
    case 'removeForward':
      return `removal of forward ${forwardRule(change.forward)} of network ${change.network}`
    case 'addNetwork':
      return `new network ${change.network.name}`
    case 'removeNetwork':
      return `removal of network ${change.network.name}`
  }
}

/** Paths of the leaves in which two values differ; lists count as one. */
function leafPaths(path: string, a: unknown, b: unknown): string[] {
  if (isDeepStrictEqual(a, b)) return []
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  if (!isRecord(a) || !isRecord(b)) return [path]
  const keys = new Set([...Object.keys(a), ...Object.keys(b)])
  return [...keys].flatMap((key) => leafPaths(`${path}.${key}`, a[key], b[key]))
}

function without<T extends object>(value: T, ...members: (keyof T)[]): object {
  return Object.fromEntries(Object.entries(value).filter(([key]) => !members.includes(key as keyof T)))
}

const byName = <T extends Named>(items: readonly T[], name: string) =>
  items.find((item) => item.name === name)

/** Those of `a` that `b` has no namesake of. */
const missingIn = <T extends Named>(a: readonly T[], b: readonly T[]) =>
  a.filter(({ name }) => !byName(b, name))

/** Whether those in both lists stand in another order. */
function reordered(running: readonly Named[], wanted: readonly Named[]): boolean {
  const names = (items: readonly Named[], others: readonly Named[]) =>
    items.filter(({ name }) => byName(others, name)).map(({ name }) => name)
  return !isDeepStrictEqual(names(running, wanted), names(wanted, running))
}

/** Whether a device with this place can be taken out while the guest runs; where it is unknown, whether one like it may. */
function removable(spec: VmSpec, facts: MachineFacts | undefined, id: string): boolean {
  if (spec.machine === 'microvm') return false
  if (spec.machine === 'pc') return true
  // A q35's own bus takes and gives nothing after the start; what hangs on a port or a controller can go.
  const bus = facts?.devices.get(id)
  return bus === undefined || bus.startsWith('/machine/peripheral/')
}

/** Takes a port of a q35, which has few; a pc has a whole bus. */
function takesPort(spec: VmSpec, free: { ports: number }): boolean {
  if (spec.machine !== 'q35') return spec.machine === 'pc'
  if (free.ports <= 0) return false
  free.ports -= 1
  return true
}

function canAddDisk(disk: VmDisk, spec: VmSpec, facts: MachineFacts | undefined, free: { ports: number }) {
  // An export is claimed with a launch, and a server that hangs while it is opened would hold up the guest.
  if (disk.nbd) return false
  if (disk.bus === 'virtio') return takesPort(spec, free)
  const hasController = facts ? facts.devices.has('scsi0') : spec.disks.some(({ bus }) => bus === 'scsi')
  return disk.bus === 'scsi' && hasController && spec.machine !== 'microvm'
}

function sameDisk(before: VmDisk, after: VmDisk, found: Found): void {
  const path = `spec.disks[${after.name}]`
  found.restart.push(...leafPaths(path, without(before, 'size'), without(after, 'size')))
  // The size of what was given means nothing.
  if ([before, after].some(({ path, nbd }) => path !== undefined || nbd)) return
  const [has = 0, wants] = [wantedBytes(before), wantedBytes(after)]
  if (wants === undefined || wants === has) return
  if (wants > has) found.changes.push({ kind: 'growDisk', disk: after, bytes: wants })
  else found.refused.push(`${path}.size: a disk is never made smaller; set it to ${before.size}`)
}

function diskDiff(
  running: VmSpec,
  wanted: VmSpec,
  facts: MachineFacts | undefined,
  free: { ports: number },
  found: Found,
) {
  for (const disk of missingIn(running.disks, wanted.disks)) {
    const pluggable = disk.bus !== 'sata' && removable(running, facts, diskDeviceId(disk.name))
    if (pluggable) found.changes.push({ kind: 'removeDisk', disk })
    else found.restart.push(`spec.disks[${disk.name}]`)
  }
  for (const disk of wanted.disks) {
    const before = byName(running.disks, disk.name)
    if (before) sameDisk(before, disk, found)
    else if (canAddDisk(disk, running, facts, free)) found.changes.push({ kind: 'addDisk', disk })
    else found.restart.push(`spec.disks[${disk.name}]`)
  }
  if (reordered(running.disks, wanted.disks)) found.restart.push('spec.disks (their order)')
}

const isUser = (network: VmNetwork) => !network.tap && !network.bridge
const forwardsOf = (network: VmNetwork) => network.user?.forwards ?? []

function sameNetwork(before: VmNetwork, after: VmNetwork, found: Found): void {
  found.restart.push(
    ...leafPaths(`spec.networks[${after.name}]`, without(before, 'user'), without(after, 'user')),
  )
  if (!isUser(before) || !isUser(after)) return
  const has = (forwards: readonly Forward[], rule: string) => forwards.some((f) => forwardRule(f) === rule)
  const [old, wanted] = [forwardsOf(before), forwardsOf(after)]
  // What goes away comes first: it may hold the port that another is to have.
  for (const forward of old.filter((f) => !has(wanted, forwardRule(f))))
    found.changes.push({ kind: 'removeForward', network: after.name, forward })
  for (const forward of wanted.filter((f) => !has(old, forwardRule(f))))
    found.changes.push({ kind: 'addForward', network: after.name, forward })
}

function networkDiff(
  running: VmSpec,
  wanted: VmSpec,
  facts: MachineFacts | undefined,
  free: { ports: number },
  found: Found,
) {
  // A tap on a bridge is made and removed around a whole run.
  const pluggable = (network: VmNetwork) => network.model === 'virtio' && !network.bridge
  for (const network of missingIn(running.networks, wanted.networks)) {
    if (pluggable(network) && removable(running, facts, networkIds(network.name).device))
      found.changes.push({ kind: 'removeNetwork', network })
    else found.restart.push(`spec.networks[${network.name}]`)
  }
  for (const network of wanted.networks) {
    const before = byName(running.networks, network.name)
    if (before) sameNetwork(before, network, found)
    else if (pluggable(network) && takesPort(running, free))
      found.changes.push({ kind: 'addNetwork', network })
    else found.restart.push(`spec.networks[${network.name}]`)
  }
  if (reordered(running.networks, wanted.networks)) found.restart.push('spec.networks (their order)')
}

function deviceDiff(running: VmSpec['devices'], wanted: VmSpec['devices'], found: Found): void {
  found.restart.push(...leafPaths('spec.devices', without(running, 'watchdog'), without(wanted, 'watchdog')))
  const [before, after] = [running.watchdog?.action, wanted.watchdog?.action]
  if (before === after) return
  if (before === undefined || after === undefined) found.restart.push('spec.devices.watchdog')
  else found.changes.push({ kind: 'watchdog', action: after })
}

/**
 * How a running QEMU differs from what is wanted of it. Pure; `facts` are what QEMU says of itself, and sharpen what
 * can be plugged.
 */
export function specDiff(running: VmSpec, wanted: VmSpec, facts?: MachineFacts): SpecDiff {
  const found: Found = { changes: [], restart: [], refused: [] }
  // As it is at nearly every look.
  if (isDeepStrictEqual(running, wanted)) return found
  const free = { ports: facts ? facts.freePorts.length : 1 }
  const { devices, disks, networks, memory, ...rest } = without(running, ...policyMembers) as VmSpec
  const wantedRest = without(wanted, ...policyMembers, 'devices', 'disks', 'networks', 'memory')
  found.restart.push(...leafPaths('spec', rest, wantedRest))
  if (bytesOf(memory) !== bytesOf(wanted.memory)) found.restart.push('spec.memory')
  deviceDiff(devices, wanted.devices, found)
  diskDiff(running, wanted, facts, free, found)
  networkDiff(running, wanted, facts, free, found)
  if (!isDeepStrictEqual(withPolicy(running, wanted), running)) found.changes.push({ kind: 'policy' })
  return found
}

/** The running spec with the members of the wanted one that QEMU never sees, among them sizes that mean nothing. */
function withPolicy(running: VmSpec, wanted: VmSpec): VmSpec {
  const disks = running.disks.map((disk) => {
    const after = byName(wanted.disks, disk.name)
    const same =
      after &&
      (disk.path !== undefined || after.size === undefined || wantedBytes(after) === wantedBytes(disk))
    if (!same) return disk
    const { size: _old, ...others } = disk
    return after.size === undefined ? others : { ...others, size: after.size }
  })
  const policy = Object.fromEntries(policyMembers.map((member) => [member, wanted[member]]))
  return { ...running, ...policy, disks }
}

/** Puts items where the wanted list has them; those it does not have come last. */
function inOrder<T extends Named>(items: readonly T[], wanted: readonly Named[]): T[] {
  const place = ({ name }: Named) => {
    const index = wanted.findIndex((other) => other.name === name)
    return index < 0 ? wanted.length : index
  }
  return items.toSorted((a, b) => place(a) - place(b))
}

function withForwards(spec: VmSpec, name: string, of: (forwards: readonly Forward[]) => Forward[]): VmSpec {
  const networks = spec.networks.map((network) =>
    network.name === name
      ? { ...network, user: { ...network.user, forwards: of(forwardsOf(network)) } }
      : network,
  )
  return { ...spec, networks }
}

/** The running spec once a change is made. */
export function applied(running: VmSpec, wanted: VmSpec, change: LiveChange): VmSpec {
  switch (change.kind) {
    case 'policy':
      return withPolicy(running, wanted)
    case 'watchdog':
      return { ...running, devices: { ...running.devices, watchdog: { action: change.action } } }
    case 'growDisk': {
      const { name, size } = change.disk
      const disks = running.disks.map((disk) => (disk.name === name ? { ...disk, size } : disk))
      return { ...running, disks }
    }
    case 'addDisk':
      return { ...running, disks: inOrder([...running.disks, change.disk], wanted.disks) }
    case 'removeDisk':
      return { ...running, disks: running.disks.filter(({ name }) => name !== change.disk.name) }
    case 'addForward':
      return withForwards(running, change.network, (forwards) => [...forwards, change.forward])
    case 'removeForward': {
      const rule = forwardRule(change.forward)
      return withForwards(running, change.network, (all) => all.filter((f) => forwardRule(f) !== rule))
    }
    case 'addNetwork':
      return { ...running, networks: inOrder([...running.networks, change.network], wanted.networks) }
    case 'removeNetwork':
      return { ...running, networks: running.networks.filter(({ name }) => name !== change.network.name) }
  }
}
