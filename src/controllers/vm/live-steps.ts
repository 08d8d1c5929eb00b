import { watchdogAction } from '../../host/qemu-args.ts'
import { addedDiskDevice, blockNodes, diskDeviceId, nodeNames } from '../../host/qemu-disks.ts'
import {
  addedNetdev,
  addedNetworkDevice,
  forwardKey,
  forwardRule,
  networkIds,
} from '../../host/qemu-networks.ts'
import type { ArgumentsOf, CommandName } from '../../qmp/commands.ts'
import type { VmDisk, VmNetwork, VmSpec } from '../../resources/vm.ts'
import type { LiveChange } from './live-changes.ts'
import type { MachineFacts } from './machine-facts.ts'

/** One command of QMP, as data. */
export type QmpCall = {
  readonly [N in CommandName]: { readonly command: N; readonly args: ArgumentsOf<N> }
}[CommandName]

/** How far a change is, by what QEMU says now. Every step may be repeated and may be lost. */
export type Step =
  | { readonly state: 'done' }
  | {
      readonly state: 'do'
      /** Names it among the steps of its change. */
      readonly stage: string
      readonly calls: readonly QmpCall[]
      /** QEMU can't be asked whether it was done: obeying is all there is to know. */
      readonly blind?: true
      /** The disk whose pool must have room for it. */
      readonly grows?: string
    }
  | { readonly state: 'wait'; readonly why: string }

export interface StepContext {
  readonly facts: MachineFacts
  readonly machine: VmSpec['machine']
  readonly uid: string
  /** Path of a disk on this host, or why there is none to use. */
  readonly fileOf: (disk: string) => { readonly path: string } | { readonly why: string }
  /** Gives each caller another free port; undefined where none is left. */
  readonly takePort: () => string | undefined
}

const done: Step = { state: 'done' }

function monitor(line: string): QmpCall {
  return { command: 'human-monitor-command', args: { 'command-line': line } }
}

/** Whether QEMU has a disk open, with a device or without. */
export function isOpen(disk: string, facts: MachineFacts): boolean {
  return closing(disk, facts).length > 0
}

/** Nodes of a disk that are there, the upper first: they can only be closed in this order. */
function closing(disk: string, { nodes }: MachineFacts): QmpCall[] {
  const { format, file } = nodeNames(disk)
  return [format, file]
    .filter((node) => nodes.has(node))
    .map((node) => ({ command: 'blockdev-del', args: { 'node-name': node } }))
}

function addDisk(disk: VmDisk, context: StepContext): Step {
  const { facts, machine, fileOf, takePort } = context
  if (facts.devices.has(diskDeviceId(disk.name))) return done
  const file = fileOf(disk.name)
  // Nodes without a device are left from a try that failed, or from before the disk was taken out. While QEMU has them
  // open, nothing can prepare the file.
  const left = closing(disk.name, facts)
  if ('why' in file)
    return left.length > 0 ? { state: 'do', stage: 'close', calls: left } : { state: 'wait', why: file.why }
  const bus = disk.bus === 'scsi' ? 'scsi0.0' : busFor(machine, takePort)
  if (bus === undefined) return { state: 'wait', why: 'no port is free' }
  const opening = blockNodes(disk, file.path).map(
    (node) => ({ command: 'blockdev-add', args: node }) as QmpCall,
  )
  const plug = { command: 'device_add', args: addedDiskDevice(disk, bus) } as QmpCall
  return { state: 'do', stage: 'plug', calls: [...left, ...opening, plug] }
}

function busFor(machine: VmSpec['machine'], takePort: () => string | undefined): string | undefined {
  return machine === 'pc' ? 'pci.0' : takePort()
}

function unplug(id: string): Step {
  return { state: 'do', stage: 'unplug', calls: [{ command: 'device_del', args: { id } }] }
}

function removeDisk({ name }: VmDisk, { facts }: StepContext): Step {
  const id = diskDeviceId(name)
  if (facts.devices.has(id)) return unplug(id)
  const calls = closing(name, facts)
  return calls.length === 0 ? done : { state: 'do', stage: 'close', calls }
}

function addNetwork(network: VmNetwork, { facts, machine, uid, takePort }: StepContext): Step {
  const { netdev, device } = networkIds(network.name)
  if (facts.devices.has(device)) return done
  const bus = busFor(machine, takePort)
  if (bus === undefined) return { state: 'wait', why: 'no port is free' }
  const left = facts.netdevs.has(netdev) ? [{ command: 'netdev_del', args: { id: netdev } } as QmpCall] : []
  const calls = [
    { command: 'netdev_add', args: addedNetdev(network, uid) } as QmpCall,
    { command: 'device_add', args: addedNetworkDevice(network, uid, bus) } as QmpCall,
  ]
  return { state: 'do', stage: 'plug', calls: [...left, ...calls] }
}

function removeNetwork({ name }: VmNetwork, { facts }: StepContext): Step {
  const { netdev, device } = networkIds(name)
  if (facts.devices.has(device)) return unplug(device)
  if (!facts.netdevs.has(netdev)) return done
  return { state: 'do', stage: 'close', calls: [{ command: 'netdev_del', args: { id: netdev } }] }
}

function growDisk(disk: VmDisk, bytes: number, { facts }: StepContext): Step {
  const known = facts.disks.get(disk.name)
  if (!known) return { state: 'wait', why: 'QEMU does not show the disk' }
  if (known.bytes >= bytes) return done
  const call: QmpCall = { command: 'block_resize', args: { 'node-name': known.node, size: bytes } }
  return { state: 'do', stage: 'grow', calls: [call], grows: disk.name }
}

type ForwardChange = Extract<LiveChange, { kind: 'addForward' | 'removeForward' }>

function forward({ kind, network, forward: wanted }: ForwardChange, { facts }: StepContext): Step {
  const { netdev } = networkIds(network)
  const rules = facts.forwards.get(netdev) ?? []
  const isThere = rules.includes(forwardRule(wanted))
  if (isThere === (kind === 'addForward')) return done
  if (kind === 'removeForward')
    return { state: 'do', stage: 'close', calls: [monitor(`hostfwd_remove ${netdev} ${forwardKey(wanted)}`)] }
  if (rules.some((rule) => rule.startsWith(`${forwardKey(wanted)}-`)))
    return { state: 'wait', why: 'the port still leads elsewhere' }
  return { state: 'do', stage: 'open', calls: [monitor(`hostfwd_add ${netdev} ${forwardRule(wanted)}`)] }
}

/** The next step of a change by what QEMU says now. Pure, but for the ports it takes. */
export function stepOf(change: LiveChange, context: StepContext): Step {
  switch (change.kind) {
    case 'policy':
      return done
    case 'watchdog': {
      const watchdog = watchdogAction(change.action) as ArgumentsOf<'set-action'>['watchdog']
      return {
        state: 'do',
        stage: 'set',
        calls: [{ command: 'set-action', args: { watchdog } }],
        blind: true,
      }
    }
    case 'growDisk':
      return growDisk(change.disk, change.bytes, context)
    case 'addDisk':
      return addDisk(change.disk, context)
    case 'removeDisk':
      return removeDisk(change.disk, context)
    case 'addForward':
    case 'removeForward':
      return forward(change, context)
    case 'addNetwork':
      return addNetwork(change.network, context)
    case 'removeNetwork':
      return removeNetwork(change.network, context)
  }
}
