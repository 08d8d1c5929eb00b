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

const models = { e1000: 'e1000', rtl8139: 'rtl8139' } as const

function backend(network: VmNetwork, id: string, uid: string, taps?: ReadonlyMap<string, string>): string {
  if (network.tap || network.bridge) {
    const ifname = network.tap?.name ?? taps?.get(network.name) ?? tapName(uid, network.name)
    return optionList('tap', { id, ifname, script: 'no', downscript: 'no' })
  }
  const forwards = (network.user?.forwards ?? []).map(
    (f) => `,hostfwd=${f.protocol}:${f.hostAddress}:${f.hostPort}-:${f.guestPort}`,
  )
  return optionList('user', { id }) + forwards.join('')
}

/** `-netdev` and `-device` of every network. A card has no boot ROM: machines boot from disks or a kernel. */
export function networkArgs(
  spec: VmSpec,
  uid: string,
  buses: Buses,
  taps?: ReadonlyMap<string, string>,
): string[] {
  return spec.networks.flatMap((network, index) => {
    const id = `net-${network.name}`
    const address = pciAddress(pciSlots.networks, index, spec.networks.length)
    const members = { netdev: id, mac: network.mac ?? macOf(uid, network.name) }
    const device =
      network.model === 'virtio'
        ? buses.virtio('net', { ...address, romfile: '' }, members)
        : buses.pci(models[network.model], { ...address, romfile: '' }, members)
    return ['-netdev', backend(network, id, uid, taps), '-device', device]
  })
}
