import { vmPaths } from '../../src/host/paths.ts'
import type { QemuArgsInput } from '../../src/host/qemu-args.ts'
import { nbdUrl } from '../../src/resources/nbd.ts'
import { type VirtualMachine, vmSpec } from '../../src/resources/vm.ts'

export const uid = '7b2f9c1e-3a54-4d0b-9c7e-5f1a2b3c4d5e'

/** A machine with the defaults of every member that `spec` leaves out. */
export function machine(spec: Record<string, unknown> = {}, id: string = uid): VirtualMachine {
  return {
    apiVersion: 'plasmavmc.io/v1alpha1',
    kind: 'VirtualMachine',
    metadata: { name: 'web', namespace: 'shop', uid: id },
    spec: vmSpec.parse(spec),
  }
}

/** Specs whose arguments are kept as golden files, each named after what it shows. */
export const goldenSpecs: Readonly<Record<string, Record<string, unknown>>> = {
  q35: {
    cpu: { cores: 2, sockets: 1, threads: 2, model: 'qemu64' },
    memory: '256Mi',
    disks: [
      { name: 'root', size: '1Gi', bootOrder: 2, cache: 'writethrough' },
      { name: 'data', size: '1Gi', bus: 'scsi', cache: 'unsafe', serial: 'DATA-1', bootOrder: 1 },
      { name: 'logs', size: '1Gi', bus: 'sata', format: 'raw' },
      { name: 'tools', size: '1Gi', bus: 'sata', format: 'raw', readOnly: true },
      { name: 'stick', size: '1Gi', bus: 'usb' },
    ],
    networks: [
      {
        name: 'nat',
        user: {
          forwards: [
            { hostPort: 42_022, guestPort: 22 },
            { protocol: 'udp', hostPort: 42_053, guestPort: 53 },
          ],
        },
      },
      { name: 'old', model: 'e1000', mac: '52:54:00:00:00:01' },
    ],
    cloudInit: { userData: '#cloud-config\n' },
    devices: { watchdog: { action: 'pause' }, vnc: true },
  },
  pc: {
    machine: 'pc',
    disks: [{ name: 'root', size: '1Gi', cache: 'directsync' }],
    networks: [{ name: 'lan', bridge: { name: 'br0' }, model: 'rtl8139' }],
  },
  microvm: {
    machine: 'microvm',
    memory: '128Mi',
    kernel: { image: 'kernel', initrd: 'initrd', cmdline: 'console=ttyS0 root=/dev/vda' },
    disks: [
      { name: 'root', size: '1Gi' },
      { name: 'data', size: '1Gi', bus: 'scsi' },
    ],
    networks: [{ name: 'nat' }],
  },
  'microvm-pci': {
    machine: 'microvm',
    kernel: { image: 'kernel' },
    disks: [{ name: 'stick', size: '1Gi', bus: 'usb' }],
    networks: [{ name: 'old', model: 'e1000' }],
    devices: { watchdog: {}, vnc: true },
  },
  uefi: { firmware: 'uefi', disks: [{ name: 'root', size: '1Gi' }] },
  many: {
    disks: Array.from({ length: 10 }, (_, i) => ({ name: `d${i}`, size: '1Gi' })),
    networks: Array.from({ length: 9 }, (_, i) => ({ name: `n${i}` })),
    devices: { rng: false, balloon: false, pvpanic: false, guestAgent: false },
  },
  sata: { disks: Array.from({ length: 8 }, (_, i) => ({ name: `s${i}`, size: '1Gi', bus: 'sata' })) },
  nbd: {
    disks: [
      { name: 'root', format: 'raw', nbd: { host: 'nas.example.org', exportName: 'vms/root' } },
      { name: 'six', format: 'raw', bus: 'scsi', cache: 'none', nbd: { host: '2001:db8::7', port: 10_810 } },
      {
        ...{ name: 'odd', format: 'raw', readOnly: true },
        nbd: { host: '192.0.2.7', exportName: 'a,b=c "d" \\ é \'e\',,file.driver=x' },
      },
    ],
  },
  quoting: {
    disks: [{ name: 'root', size: '1Gi' }],
    kernel: { image: 'kernel', cmdline: 'quiet a="b, c",d=\'e\' -uuid' },
    devices: { vnc: true },
  },
}

/** Folders of a golden machine: real ones, or the fixed ones of the golden files. */
export interface Places {
  readonly runDir: string
  readonly dataDir: string
  readonly firmware: string
}

export function goldenPlaces(name: string): Places {
  const odd = name === 'quoting'
  return {
    runDir: odd ? `/run/a, "b" c's,,d=e` : '/run/plasmavmc',
    dataDir: odd ? `/var/lib/a, "b" c's,,d=e` : '/var/lib/plasmavmc',
    firmware: '/usr/share/OVMF/OVMF_CODE_4M.fd',
  }
}

export function goldenInput(name: string, places: Places): QemuArgsInput {
  const vm = machine(goldenSpecs[name])
  const disks = new Map(
    vm.spec.disks.map((d) => [d.name, d.nbd ? nbdUrl(d.nbd) : `${places.dataDir}/${d.name}.${d.format}`]),
  )
  disks.set('cloud-init', `${places.dataDir}/cloud-init.raw`)
  disks.set('kernel', `${places.dataDir}/kernel`).set('initrd', `${places.dataDir}/initrd`)
  disks.set('efi-code', places.firmware).set('efi-vars', `${places.dataDir}/efi-vars.raw`)
  return { vm, launchId: 'l-1', epoch: 3, paths: vmPaths(places.runDir, uid), disks, accelerator: 'tcg' }
}
