import { PlasmaError } from '../lib/errors.ts'
import { bytesOf } from '../resources/quantity.ts'
import type { VirtualMachine, VmSpec } from '../resources/vm.ts'
import type { VmPaths } from './paths.ts'
import { type Buses, busesOf, hotplugArgs, needsPci, pciSlots } from './qemu-buses.ts'
import { diskArgs, firmwareArgs } from './qemu-disks.ts'
import { networkArgs } from './qemu-networks.ts'
import { escapeValue, optionList } from './qemu-options.ts'

export { macOf, tapName } from './qemu-networks.ts'
export { specHash } from './spec-hash.ts'

/** The fw_cfg file that marks a QEMU as ours; its text is `<launchId>/<epoch>`. */
export const identityFile = 'opt/io.plasmavmc/identity'

export interface QemuArgsInput {
  readonly vm: VirtualMachine
  readonly launchId: string
  readonly epoch: number
  readonly paths: VmPaths
  /** Resolved paths by disk name; also `kernel`, `initrd`, `cloud-init`, `efi-code` and `efi-vars` where they apply. */
  readonly disks: ReadonlyMap<string, string>
  readonly accelerator: 'kvm' | 'tcg'
  /** Names of taps by network name; `tapName` where absent. */
  readonly taps?: ReadonlyMap<string, string>
}

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * The uid of a machine, checked: it becomes a directory name and `-uuid`.
 * @throws PlasmaError `BadUid`
 */
export function uidOf(vm: VirtualMachine): string {
  return checkUid(vm.metadata.uid ?? '')
}

/** @throws PlasmaError `BadUid` where it is no lower-case UUID. */
export function checkUid(uid: string): string {
  if (uuidPattern.test(uid)) return uid
  throw new PlasmaError('BadUid', `metadata.uid ${JSON.stringify(uid)} is no lower-case UUID`)
}

function identityArgs(input: QemuArgsInput, uid: string): string[] {
  const { namespace = 'default', name } = input.vm.metadata
  return [
    ...['-name', optionList('', { guest: `${namespace}/${name}`, 'debug-threads': true })],
    ...['-uuid', uid],
    ...['-fw_cfg', optionList('', { name: identityFile, string: `${input.launchId}/${input.epoch}` })],
    // QEMU locks this file: a second QEMU on it ends at once, whoever started it.
    ...['-pidfile', input.paths.pidfile],
  ]
}

/**
 * What QEMU itself does when the watchdog fires. For `poweroff` it would exit at once, and whether that was the watchdog
 * could not be asked later: it holds the guest instead, and the controller ends it.
 */
export function watchdogAction(action: NonNullable<VmSpec['devices']['watchdog']>['action']): string {
  return action === 'poweroff' ? 'pause' : action
}

/** Started stopped: the guest runs only after we have verified who it is, and nothing that ends it ends QEMU. */
function lifecycleArgs(spec: VmSpec): string[] {
  const asked = spec.devices.watchdog?.action
  const watchdog = asked && watchdogAction(asked)
  return [
    '-S',
    '-nodefaults',
    '-no-user-config',
    ...['-action', optionList('', { shutdown: 'pause', panic: 'pause', reboot: 'reset', watchdog })],
    ...['-msg', 'timestamp=on'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  ]
}

function boardArgs(spec: VmSpec, accelerator: string): string[] {
  const { cores, sockets, threads, model } = spec.cpu
  const bytes = bytesOf(spec.memory)
  const uefi = spec.firmware === 'uefi'
  const micro = spec.machine === 'microvm'
  const board = {
    accel: accelerator,
    'dump-guest-core': false,
    pcie: micro && needsPci(spec) ? true : undefined,
    // Without graphics SeaBIOS and GRUB speak on the serial console.
    graphics: micro || spec.devices.vnc ? undefined : false,
    pflash0: uefi ? 'efi-code' : undefined,
    pflash1: uefi ? 'efi-vars' : undefined,
  }
  return [
    ...['-machine', optionList(spec.machine, board)],
    // Transports of QEMU's default, legacy kind are unknown to current guests.
    ...(micro ? ['-global', 'virtio-mmio.force-legacy=false'] : []),
    ...['-cpu', model],
    ...['-smp', optionList('', { cpus: cores * sockets * threads, sockets, cores, threads })],
    ...['-m', optionList('', { size: bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20}M` : `${bytes}B` })],
  ]
}

function kernelArgs(spec: VmSpec, disks: ReadonlyMap<string, string>): string[] {
  if (!spec.kernel) return []
  const { image, initrd, cmdline } = spec.kernel
  return [
    ...['-kernel', disks.get('kernel') ?? image],
    ...(initrd === undefined ? [] : ['-initrd', disks.get('initrd') ?? initrd]),
    ...(cmdline === '' ? [] : ['-append', cmdline]),
  ]
}

function socketChardev(id: string, path: string, logfile?: string): string[] {
  const logging = logfile === undefined ? {} : { logfile, logappend: true }
  return ['-chardev', optionList('socket', { id, path, server: true, wait: false, ...logging })]
}

function channelArgs(paths: VmPaths): string[] {
  return [
    ...socketChardev('qmp', paths.qmp),
    ...['-mon', 'chardev=qmp,mode=control'],
    ...socketChardev('console', paths.console, paths.consoleLog),
    ...['-serial', 'chardev:console'],
  ]
}

function displayArgs(spec: VmSpec, paths: VmPaths): string[] {
  if (!spec.devices.vnc) return ['-display', 'none', '-vga', 'none']
  const display = ['-display', `vnc=unix:${escapeValue(paths.vnc)}`]
  return spec.machine === 'microvm' ? [...display, '-device', 'bochs-display'] : [...display, '-vga', 'std']
}

function helperDeviceArgs(spec: VmSpec, paths: VmPaths, buses: Buses): string[] {
  const { guestAgent, rng, balloon, pvpanic, watchdog } = spec.devices
  const at = (slot: number) => ({ addr: `0x${slot.toString(16)}` })
  const args: string[] = []
  if (guestAgent) {
    args.push('-device', buses.virtio('serial', at(pciSlots.serial), { id: 'serial0' }))
    args.push(...socketChardev('qga', paths.guestAgent))
    args.push('-device', 'virtserialport,bus=serial0.0,chardev=qga,name=org.qemu.guest_agent.0')
  }
  if (rng) {
    args.push('-object', 'rng-random,id=entropy,filename=/dev/urandom')
    args.push('-device', buses.virtio('rng', at(pciSlots.rng), { id: 'rng0', rng: 'entropy' }))
  }
  if (balloon) args.push('-device', buses.virtio('balloon', at(pciSlots.balloon), { id: 'balloon0' }))
  // A microvm has no ISA bus for it.
  if (pvpanic && spec.machine !== 'microvm') args.push('-device', 'pvpanic')
  if (watchdog) args.push('-device', buses.pci('i6300esb', at(pciSlots.watchdog), { id: 'watchdog0' }))
  return args
}

/**
 * QEMU's arguments (without argv[0]) for one launch. Pure: the same input gives the same arguments.
 * What identifies the process comes first, so that no value of a user can be taken for it.
 * @throws PlasmaError `BadUid`, `DiskMissing`
 */
export function qemuArgs(input: QemuArgsInput): string[] {
  const { vm, paths, disks } = input
  const { spec } = vm
  const uid = uidOf(vm)
  const buses = busesOf(spec.machine)
  return [
    ...identityArgs(input, uid),
    ...lifecycleArgs(spec),
    ...firmwareArgs(spec, disks),
    ...boardArgs(spec, input.accelerator),
    ...channelArgs(paths),
    ...displayArgs(spec, paths),
    ...hotplugArgs(spec.machine),
    ...diskArgs(spec, disks, buses),
    ...networkArgs(spec, uid, buses, input.taps),
    ...helperDeviceArgs(spec, paths, buses),
    ...kernelArgs(spec, disks),
  ]
}
