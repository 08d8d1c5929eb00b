import { z } from 'zod'
import { defineResource, type ObjectOf } from './define.ts'
import { exportKey, isNbdHost, nbd } from './nbd.ts'
import { parseQuantity, quantity } from './quantity.ts'
import { listOf } from './schema.ts'
import { shrunkDisks } from './vm-disks.ts'
import { affinity, recovery, spread, toleration } from './vm-placement.ts'
import { vmStatus } from './vm-status.ts'
import { runStrategies } from './vm-strategies.ts'

const label = z
  .string()
  .regex(
    /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/,
    'must be a DNS label: lower-case letters, digits and -, starting and ending with a letter or digit',
  )
  .max(63)

const port = z.int().min(1).max(65535)

const cpu = z.object({
  cores: z.int().min(1).max(255).default(1).describe('Cores per socket.'),
  sockets: z.int().min(1).max(255).default(1).describe('Sockets.'),
  threads: z.int().min(1).max(16).default(1).describe('Threads per core.'),
  model: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'must be the name of a QEMU CPU model')
    .default('max')
    .describe('QEMU CPU model; `max` is everything the accelerator offers.'),
})

const kernel = z.object({
  image: z.string().min(1).describe('Kernel file on the host; relative paths lie in the image folder.'),
  initrd: z
    .string()
    .min(1)
    .optional()
    .describe('Initial RAM disk on the host; relative paths lie in the image folder.'),
  cmdline: z.string().max(2047).default('').describe('Kernel command line.'),
})

const disk = z.object({
  name: label.describe('Unique within the machine.'),
  size: quantity(
    'Virtual size. Required for a blank disk; for an image it grows the disk to this. It may grow while the machine runs, and never shrinks.',
  ).optional(),
  image: z
    .object({
      source: z
        .string()
        .min(1)
        .describe('File on the host (relative paths lie in the image folder) or an http(s) URL.'),
      sha256: z
        .string()
        .regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hex digits')
        .optional()
        .describe('SHA-256 of the source; required for a URL.'),
    })
    .optional()
    .describe(
      'Start from this image. A qcow2 disk becomes an overlay on it, and is not started from while that image is gone or another; a raw one becomes a copy of it.',
    ),
  path: z
    .string()
    .startsWith('/', 'must be an absolute path')
    .optional()
    .describe('Use this existing file or block device; it is never deleted.'),
  nbd: nbd
    .optional()
    .describe(
      'Use an export of an NBD server over TCP: raw, as big as it is there, never made, grown or deleted. NBD has no image locks: what else writes to it is for you to prevent, other machines of the same store aside.',
    ),
  pool: label.default('default').describe('StoragePool to keep the disk in.'),
  format: z.enum(['qcow2', 'raw']).default('qcow2').describe('Format on the host.'),
  bus: z.enum(['virtio', 'scsi', 'sata', 'usb']).default('virtio').describe('How the guest sees it.'),
  cache: z
    .enum(['none', 'writeback', 'writethrough', 'directsync', 'unsafe'])
    .default('writeback')
    .describe('QEMU cache mode.'),
  readOnly: z.boolean().default(false).describe('The guest can only read.'),
  bootOrder: z.int().min(1).max(100).optional().describe('Lower boots first.'),
  serial: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,20}$/, 'must be 1 to 20 letters, digits, dots, - or _')
    .optional()
    .describe('Serial number the guest reads.'),
})

const forward = z.object({
  protocol: z.enum(['tcp', 'udp']).default('tcp'),
  hostAddress: z.ipv4().default('127.0.0.1'),
  hostPort: port,
  guestPort: port,
})

const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,15}$/, 'must be a network interface name of at most 15 characters')

const network = z.object({
  name: label.describe('Unique within the machine.'),
  user: z
    .object({
      forwards: z.array(forward).max(64).default([]).describe('Ports of the host that lead into the guest.'),
    })
    .optional()
    .describe("QEMU's own NAT; the default."),
  bridge: z
    .object({ name: interfaceName })
    .optional()
    .describe('A tap made for this machine on this bridge of the host.'),
  tap: z.object({ name: interfaceName }).optional().describe('An existing tap device.'),
  mac: z
    .string()
    .regex(
      /^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/,
      'must be a lower-case unicast MAC address such as 52:54:00:12:34:56',
    )
    .optional()
    .describe('Derived from the uid and the name where absent.'),
  model: z.enum(['virtio', 'e1000', 'rtl8139']).default('virtio').describe('Network card.'),
})

const cloudInit = z.object({
  userData: z.string().optional().describe('NoCloud user-data.'),
  metaData: z.string().optional().describe('NoCloud meta-data; instance-id and local-hostname where absent.'),
  networkConfig: z.string().optional().describe('NoCloud network-config, version 1 or 2.'),
})

const devices = z.object({
  rng: z.boolean().default(true).describe('virtio-rng, fed from the host.'),
  balloon: z.boolean().default(true).describe('virtio-balloon.'),
  pvpanic: z.boolean().default(true).describe('Lets the guest kernel report a panic.'),
  guestAgent: z.boolean().default(true).describe('A virtio-serial channel for qemu-guest-agent.'),
  vnc: z.boolean().default(false).describe('A display with VNC on a Unix socket in the run directory.'),
  watchdog: z
    .object({
      action: z
        .enum(['reset', 'poweroff', 'pause', 'none', 'inject-nmi'])
        .default('reset')
        .describe('What happens when it fires.'),
    })
    .optional()
    .describe('An i6300esb watchdog.'),
})

export const vmSpec = z.object({
  runStrategy: z.enum(runStrategies).default('Always').describe("When it runs; KubeVirt's meanings."),
  cpu: cpu.prefault({}).describe('Processors; their number is cores × sockets × threads.'),
  memory: quantity('Guest memory.').default('512Mi'),
  machine: z
    .enum(['q35', 'pc', 'microvm'])
    .default('q35')
    .describe(
      'Machine type. microvm is for KVM: without it a Linux guest may hang early in its boot, as the one timer that a microvm has does not always tick.',
    ),
  firmware: z
    .enum(['bios', 'uefi'])
    .default('bios')
    .describe('SeaBIOS, or OVMF with its own variable store.'),
  kernel: kernel.optional().describe('Direct kernel boot.'),
  disks: z
    .array(disk)
    .max(64)
    .meta(listOf('name'))
    .default([])
    .describe(
      'Block devices. One that is taken out is detached, of a running machine where that goes without a restart; its file stays until the machine is deleted, and a disk of the same name gets it back.',
    ),
  networks: z.array(network).max(16).meta(listOf('name')).default([]).describe('Network cards.'),
  cloudInit: cloudInit.optional().describe('A NoCloud seed disk.'),
  devices: devices.prefault({}).describe('Smaller devices.'),
  accelerator: z
    .enum(['auto', 'kvm', 'tcg'])
    .default('auto')
    .describe('`auto` is KVM only where guests really run under it.'),
  terminationGracePeriodSeconds: z
    .int()
    .min(0)
    .max(86_400)
    .default(30)
    .describe('How long a guest may take to power down. Made shorter, it counts at once.'),
  hostSelector: z
    .record(z.string(), z.string())
    .default({})
    .describe(
      'Labels a host must have, all of them. kubernetes.io/hostname is the name of the host, whatever its labels say.',
    ),
  affinity: affinity.prefault({}).describe('Which machines share its host, and which do not.'),
  tolerations: z
    .array(toleration)
    .max(16)
    .default([])
    .describe('Taints of hosts that this machine puts up with.'),
  spread: z
    .array(spread)
    .max(8)
    .default([])
    .describe('How machines of a kind are spread over places, such as hosts or zones.'),
  priority: z
    .int()
    .min(-1_000_000)
    .max(1_000_000)
    .default(0)
    .describe('Machines with a higher one are placed first. None is driven out for another.'),
  recovery: recovery.prefault({}).describe('What happens when its host is lost.'),
})

type Spec = z.output<typeof vmSpec>
type Disk = Spec['disks'][number]

function duplicate(names: readonly string[], path: string) {
  const index = names.findIndex((name, i) => names.indexOf(name) < i)
  return (
    index < 0 || {
      field: `${path}[${index}].name`,
      message: `"${names[index]}" is used twice`,
      duplicate: true,
    }
  )
}

export const VirtualMachine = defineResource({
  kind: 'VirtualMachine',
  plural: 'virtualmachines',
  shortNames: ['vm', 'vms'],
  categories: ['all', 'plasmavmc'],
  selectable: ['status.phase', 'status.hostName', 'spec.runStrategy'],
  description: 'A virtual machine that PlasmaVMC keeps as declared.',
  body: z.object({
    spec: vmSpec.prefault({}).describe('What the machine should be.'),
    status: vmStatus.optional().describe('What it is, written by controllers.'),
  }),
  columns: [
    { name: 'Status', type: 'string', path: '.status.phase' },
    { name: 'Host', type: 'string', path: '.status.hostName' },
    {
      name: 'CPUs',
      type: 'integer',
      path: '.spec.cpu.cores',
      value: ({ spec: { cpu } }: { spec: Spec }) => cpu.cores * cpu.sockets * cpu.threads,
    },
    { name: 'Memory', type: 'string', path: '.spec.memory' },
    { name: 'Restarts', type: 'integer', path: '.status.restarts' },
    { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' },
    { name: 'Strategy', type: 'string', path: '.spec.runStrategy', priority: 1 },
    { name: 'PID', type: 'integer', path: '.status.process.pid', priority: 1 },
    { name: 'Reason', type: 'string', path: '.status.reason', priority: 1 },
  ],
  rules: [
    {
      at: 'spec',
      cel: '!has(self.disks) || self.disks.all(d, self.disks.exists_one(e, e.name == d.name))',
      message: 'disk names must be unique',
      holds: (spec: Spec) =>
        duplicate(
          spec.disks.map((d) => d.name),
          'disks',
        ),
    },
    {
      at: 'spec',
      cel: '!has(self.networks) || self.networks.all(n, self.networks.exists_one(e, e.name == n.name))',
      message: 'network names must be unique',
      holds: (spec: Spec) =>
        duplicate(
          spec.networks.map((n) => n.name),
          'networks',
        ),
    },
    {
      at: 'spec',
      path: 'firmware',
      cel: "!has(self.machine) || !has(self.firmware) || self.machine != 'microvm' || self.firmware != 'uefi'",
      message: 'a microvm boots with bios or a kernel, not uefi',
      holds: (spec: Spec) => spec.machine !== 'microvm' || spec.firmware !== 'uefi' || { field: 'firmware' },
    },
    {
      at: 'spec.disks[]',
      cel: '[has(self.image), has(self.path), has(self.nbd)].filter(x, x).size() <= 1',
      message: 'give one of image, path and nbd',
      holds: (d: Disk) =>
        [d.image, d.path, d.nbd].filter(Boolean).length <= 1 || { field: d.nbd ? 'nbd' : 'path' },
    },
    {
      at: 'spec.disks[]',
      path: 'size',
      cel: 'has(self.image) || has(self.path) || has(self.nbd) || has(self.size)',
      message: 'a blank disk needs a size',
      holds: (d: Disk) => Boolean(d.image ?? d.path ?? d.nbd) || d.size !== undefined || { field: 'size' },
    },
    {
      at: 'spec.disks[]',
      path: 'size',
      cel: '!has(self.nbd) || !has(self.size)',
      message: 'a disk over NBD is as big as its export: leave size out',
      holds: (d: Disk) => !d.nbd || d.size === undefined || { field: 'size' },
    },
    {
      at: 'spec.disks[]',
      path: 'format',
      cel: "!has(self.nbd) || self.format == 'raw'",
      message: 'a disk over NBD is raw: set format to raw',
      holds: (d: Disk) => !d.nbd || d.format === 'raw' || { field: 'format' },
    },
    {
      at: 'spec.disks[]',
      path: 'nbd.host',
      cel: "!has(self.nbd) || isIP(self.nbd.host) || !(self.nbd.host.contains(':') || self.nbd.host.contains('..') || self.nbd.host.startsWith('.') || self.nbd.host.matches('(^|[.])(0[xX][0-9A-Fa-f]*|[0-9]+)[.]?$'))",
      message: 'host must be a name, or an address in full (an IPv4 one as such)',
      holds: (d: Disk) => !d.nbd || isNbdHost(d.nbd.host) || { field: 'nbd.host' },
    },
    {
      at: 'spec',
      cel: '!has(self.disks) || self.disks.all(d, !has(d.nbd) || self.disks.exists_one(e, has(e.nbd) && e.nbd == d.nbd))',
      message: 'an export can be one disk of a machine only',
      holds: (spec: Spec) => {
        const keys = spec.disks.map((d) => d.nbd && exportKey(d.nbd))
        const index = keys.findIndex((key, i) => key !== undefined && keys.indexOf(key) < i)
        return index < 0 || { field: `disks[${index}].nbd` }
      },
    },
    {
      at: 'spec.disks[]',
      path: 'image.sha256',
      cel: "!has(self.image) || has(self.image.sha256) || !(self.image.source.startsWith('http:') || self.image.source.startsWith('https:'))",
      message: 'an image from a URL needs its sha256',
      holds: (d: Disk) =>
        !d.image ||
        !/^https?:/.test(d.image.source) ||
        d.image.sha256 !== undefined || { field: 'image.sha256' },
    },
    {
      at: 'spec.networks[]',
      cel: '[has(self.user), has(self.bridge), has(self.tap)].filter(x, x).size() <= 1',
      message: 'give one of user, bridge and tap',
      holds: (n: Spec['networks'][number]) =>
        [n.user, n.bridge, n.tap].filter(Boolean).length <= 1 || { field: n.tap ? 'tap' : 'bridge' },
    },
    {
      at: 'spec.networks[]',
      path: 'mac',
      // QEMU gives such a card the same address in every machine.
      cel: "!has(self.mac) || self.mac != '00:00:00:00:00:00'",
      message: 'zeros are no address: leave mac out to get one',
      holds: (n: Spec['networks'][number]) => n.mac !== '00:00:00:00:00:00' || { field: 'mac' },
    },
    {
      at: 'spec',
      path: 'memory',
      cel: "!has(self.memory) || (type(self.memory) == string ? quantity(string(self.memory)).compareTo(quantity('1Mi')) >= 0 : int(self.memory) >= 1048576)",
      message: 'memory must be at least 1Mi',
      holds: (spec: Spec) => (parseQuantity(spec.memory) ?? 0n) >= 1n << 20n || { field: 'memory' },
    },
  ],
  changes: shrunkDisks,
})

export type VirtualMachine = ObjectOf<typeof VirtualMachine>
export type VmSpec = Spec
export type { ExitReason, Phase, VmAction, VmStatus } from './vm-status.ts'
export { exitReasons, phases, vmActions, vmStatus, vmStatusOf } from './vm-status.ts'
export { type RunStrategy, runStrategies } from './vm-strategies.ts'
export type VmDisk = Disk
export type VmNetwork = Spec['networks'][number]

/** The finalizer that keeps a machine's object until its process is gone and its disks are removed. */
export const vmFinalizer = 'plasmavmc.io/host-cleanup'
