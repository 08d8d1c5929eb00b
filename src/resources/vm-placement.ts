import { z } from 'zod'

const selector = z
  .record(z.string(), z.string())
  .refine((labels) => Object.keys(labels).length > 0, 'must name at least one label')
  .meta({ minProperties: 1 })
  .describe('Labels of other machines in the same namespace; all must match.')

const neighbours = (what: string) =>
  z
    .array(
      z.object({
        labels: selector,
        required: z
          .boolean()
          .default(true)
          .describe('A host where this does not hold is refused; otherwise it only counts less.'),
      }),
    )
    .max(16)
    .default([])
    .describe(what)

/** Where a machine may run beside others. */
export const affinity = z.object({
  together: neighbours(
    'Machines on whose host this one belongs: at least one of them must be there. Where none has a host yet, one that has the labels itself may be the first.',
  ),
  apart: neighbours('Machines whose hosts this one keeps away from. They keep away from it too.'),
})

export const toleration = z.object({
  key: z.string().min(1).optional().describe('Key of the taint; any where absent.'),
  value: z.string().optional().describe('Value of the taint; any where absent.'),
  effect: z
    .enum(['NoSchedule', 'PreferNoSchedule'])
    .optional()
    .describe('Effect of the taint; any where absent.'),
})

export const spread = z.object({
  labels: selector.describe('Labels of the machines to be spread, this one among them.'),
  topologyKey: z
    .string()
    .min(1)
    .default('kubernetes.io/hostname')
    .describe(
      'Label of hosts; those with the same value count as one place. Every host has kubernetes.io/hostname, its name.',
    ),
  maxSkew: z
    .int()
    .min(1)
    .max(1000)
    .default(1)
    .describe(
      'Most machines one place may have more than another. Places all of whose hosts are closed to this machine (not Ready, cordoned, tainted, not selected) do not count as the other.',
    ),
  required: z
    .boolean()
    .default(false)
    .describe(
      'A place that would have more is refused, and so is a host without the label; otherwise it only counts less.',
    ),
})

export const recovery = z.object({
  onHostLoss: z
    .enum(['Manual', 'Failover'])
    .default('Manual')
    .describe(
      'Failover: when its host is lost, and proven dead, it is started on another. A host that can not renew its lease stops it in time for that. Manual: it waits for its host.',
    ),
})

/** Members of a machine's spec that say where it may run. QEMU never sees them: they change without a restart. */
export const placementMembers = [
  'hostSelector',
  'affinity',
  'tolerations',
  'spread',
  'priority',
  'recovery',
] as const
