import { createHash } from 'node:crypto'
import type { VmNetwork, VmSpec } from '../resources/vm.ts'
import { type Buses, pciAddress, pciSlots } from './qemu-buses.ts'
import { optionList } from './qemu-options.ts'

function digest(uid: string, networkName: string): string {
  return createHash('sha256').update(`${uid}/${networkName}`).digest('hex')
}

/** Name of the tap made for a network of a machine: 13 characters, within Linux' limit of 15 (IFNAMSIZ). */
export function tapName(uid: string, networkName: string): string {
  return `vm${digest(uid, networkName).slice(0, 11)}`
}

/** MAC address of a network of a machine: stable, under QEMU's own prefix 52:54:00. */
export function macOf(uid: string, networkName: string): string {
  const [a, b, c] = digest(uid, networkName).match(/../g)!
  return `52:54:00:${a}:${b}:${c}`
}

export type Forward = NonNullable<VmNetwork['user']>['forwards'][number]

const models = { e1000: 'e1000', rtl8139: 'rtl8139' } as const

/** A forward as QEMU's user network names it: `tcp:127.0.0.1:8080-:80`. */
export function forwardRule(f: Forward): string {
  return `${forwardKey(f)}-:${f.guestPort}`
}

/** What a forward takes of the host, and how it is removed: `tcp:127.0.0.1:8080`. */
export function forwardKey(f: Forward): string {
  return `${f.protocol}:${f.hostAddress}:${f.hostPort}`
}

/** Ids of a network's back end and of its card. */
export function networkIds(name: string): { readonly netdev: string; readonly device: string } {
  return { netdev: `net-${name}`, device: `nic-${name}` }
}

function tapOf(network: VmNetwork, uid: string, taps?: ReadonlyMap<string, string>): string | undefined {
  if (!network.tap && !network.bridge) return undefined
  return network.tap?.name ?? taps?.get(network.name) ?? tapName(uid, network.name)
}

function backend(network: VmNetwork, id: string, uid: string, taps?: ReadonlyMap<string, string>): string {
  const ifname = tapOf(network, uid, taps)
  if (ifname !== undefined) return optionList('tap', { id, ifname, script: 'no', downscript: 'no' })
  const forwards = (network.user?.forwards ?? []).map((f) => `,hostfwd=${forwardRule(f)}`)
  return optionList('user', { id }) + forwards.join('')
}

/** The back end of a network as `netdev_add` takes it. */
export function addedNetdev(network: VmNetwork, uid: string): Readonly<Record<string, unknown>> {
  const id = networkIds(network.name).netdev
  const ifname = tapOf(network, uid)
  if (ifname !== undefined) return { type: 'tap', id, ifname, script: 'no', downscript: 'no' }
  const hostfwd = (network.user?.forwards ?? []).map((f) => ({ str: forwardRule(f) }))
  return { type: 'user', id, ...(hostfwd.length > 0 && { hostfwd }) }
}

/** The virtio card of a network as `device_add` takes it, on a free port. */
export function addedNetworkDevice(
  network: VmNetwork,
  uid: string,
  bus: string,
): Readonly<Record<string, unknown>> {
  const { netdev, device: id } = networkIds(network.name)
  return { driver: 'virtio-net-pci', bus, id, netdev, mac: addressOf(network, uid), romfile: '' }
}

/** MAC address of a network: the one asked for, or the derived one. */
export function addressOf(network: VmNetwork, uid: string): string {
  return network.mac ?? macOf(uid, network.name)
}

/** `-netdev` and `-device` of every network. A card has no boot ROM: machines boot from disks or a kernel. */
export function networkArgs(
  spec: VmSpec,
  uid: string,
  buses: Buses,
  taps?: ReadonlyMap<string, string>,
): string[] {
  return spec.networks.flatMap((network, index) => {
    const { netdev: id, device: deviceId } = networkIds(network.name)
    const address = pciAddress(pciSlots.networks, index, spec.networks.length)
    const members = { id: deviceId, netdev: id, mac: addressOf(network, uid) }
    const device =
      network.model === 'virtio'
        ? buses.virtio('net', { ...address, romfile: '' }, members)
        : buses.pci(models[network.model], { ...address, romfile: '' }, members)
    return ['-netdev', backend(network, id, uid, taps), '-device', device]
  })
}
