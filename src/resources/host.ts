import { z } from 'zod'
import { conditions } from './conditions.ts'
import { defineResource, type ObjectOf } from './define.ts'
import { approximateQuantity, bytesOf } from './quantity.ts'

/** Spec of a Host; `parse({})` gives the defaults. */
export const hostSpec = z.object({
  unschedulable: z
    .boolean()
    .default(false)
    .describe('Cordoned: no machine that has no host yet is placed here. Those that are here stay.'),
  taints: z
    .array(
      z.object({
        key: z.string().min(1),
        value: z.string().default(''),
        effect: z
          .enum(['NoSchedule', 'PreferNoSchedule'])
          .describe(
            'NoSchedule: machines that do not tolerate it are not placed here. PreferNoSchedule: rather elsewhere. Those that are here stay.',
          ),
      }),
    )
    .max(32)
    .default([])
    .describe('What machines have to tolerate to be placed here.'),
  overcommit: z
    .object({
      cpuPercent: z
        .int()
        .min(1)
        .max(10_000)
        .default(400)
        .describe(
          'Of the processors, what the machines placed here may have in all, also those that are down.',
        ),
      memoryPercent: z
        .int()
        .min(1)
        .max(1_000)
        .default(100)
        .describe('Of the memory, what the machines placed here may have in all, also those that are down.'),
    })
    .prefault({}),
  fencing: z
    .object({
      mode: z
        .enum(['none', 'guard', 'watchdog', 'command'])
        .default('none')
        .describe(
          'How it is made sure that a lost host runs no machine any more: not at all (a person has to say so), by its guard process, by a hardware watchdog besides, or by a command that switches it off.',
        ),
      command: z
        .array(z.string())
        .max(64)
        .default([])
        .describe(
          'For mode command: a fence agent with its arguments, run on the leader with --action=off and --action=status added.',
        ),
      timeoutSeconds: z.int().min(1).max(600).default(60).describe('How long the command may take.'),
    })
    .prefault({}),
  maintenance: z
    .object({
      reason: z.string().default(''),
      until: z
        .string()
        .describe('RFC 3339. Until then the host neither stops machines nor is taken for lost.'),
    })
    .optional()
    .describe('Suspends the watch over this host, for upgrades.'),
})

/** What a host's status is told from. */
interface HostView {
  readonly spec?: { readonly unschedulable?: boolean; readonly maintenance?: { readonly until?: string } }
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string
      readonly status: string
      readonly reason?: string
    }[]
  }
}

/** Whether a host is in maintenance at a wall time in ms. */
export function inMaintenance({ spec }: HostView, now: number): boolean {
  const until = Date.parse(spec?.maintenance?.until ?? '')
  return Number.isFinite(until) && until > now
}

/**
 * How a host stands in words with commas between, as `kubectl get nodes` has them: Ready, or NotReady with the reason,
 * then what else holds: Fenced, SchedulingDisabled, Maintenance.
 */
export function hostStatus(host: HostView, now: number): string {
  const conditions = host.status?.conditions ?? []
  const ready = conditions.find(({ type }) => type === 'Ready')
  const fenced = conditions.some(({ type, status }) => type === 'Fenced' && status === 'True')
  const words = ready?.status === 'True' ? ['Ready'] : ['NotReady', ready?.reason ?? 'NeverSeen']
  if (fenced) words.push('Fenced')
  if (host.spec?.unschedulable) words.push('SchedulingDisabled')
  if (inMaintenance(host, now)) words.push('Maintenance')
  return words.join(',')
}

export const Host = defineResource({
  kind: 'Host',
  plural: 'hosts',
  categories: ['plasmavmc'],
  namespaced: false,
  description: 'A machine with an agent that runs virtual machines.',
  body: z.object({
    spec: hostSpec.prefault({}),
    status: z
      .object({
        bootId: z.string().optional(),
        cpus: z.int().optional(),
        memory: z.string().optional(),
        vms: z.int().optional(),
        accelerator: z.string().optional(),
        qemuVersion: z.string().optional(),
        agentVersion: z.string().optional(),
        epoch: z.int().optional().describe("The epoch of the host's lease."),
        addresses: z.array(z.string()).default([]),
        capabilities: z
          .array(z.string())
          .default([])
          .describe('What its QEMU can do, such as live migration.'),
        /** QEMUs with our mark and no resource. */
        orphans: z
          .array(
            z.object({
              uid: z.string(),
              pid: z.int(),
              name: z.string().describe('namespace/name it was launched as.'),
              launchId: z.string().optional(),
              startedAt: z.string().optional(),
              /** The VirtualMachine (apiVersion, kind, metadata, spec) as JSON text from its launch record; what `adopt` creates. */
              manifest: z.string().optional(),
            }),
          )
          .default([]),
        conditions,
      })
      .optional(),
  }),
  columns: [
    {
      name: 'Status',
      type: 'string',
      path: '.status.conditions[?(@.type=="Ready")].reason',
      value: hostStatus,
    },
    { name: 'VMs', type: 'integer', path: '.status.vms' },
    { name: 'CPUs', type: 'integer', path: '.status.cpus' },
    {
      name: 'Memory',
      type: 'string',
      path: '.status.memory',
      value: ({ status }: { status?: { memory?: string } }) =>
        status?.memory === undefined ? undefined : approximateQuantity(bytesOf(status.memory)),
    },
    { name: 'Epoch', type: 'integer', path: '.status.epoch' },
    { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' },
    { name: 'Accelerator', type: 'string', path: '.status.accelerator', priority: 1 },
    { name: 'QEMU', type: 'string', path: '.status.qemuVersion', priority: 1 },
  ],
})
export type Host = ObjectOf<typeof Host>
