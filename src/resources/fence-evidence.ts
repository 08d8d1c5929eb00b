import { z } from 'zod'
import { defineResource, type ObjectOf } from './define.ts'

export const proofs = ['Guard', 'Watchdog', 'Command', 'Operator'] as const

/** Why it was believed that no machine of a lost host runs any more. Written before any of them is placed elsewhere; never changed. */
export const FenceEvidence = defineResource({
  kind: 'FenceEvidence',
  plural: 'fenceevidences',
  shortNames: ['fe'],
  categories: ['plasmavmc'],
  namespaced: false,
  hasStatus: false,
  description: 'Why it was believed that no virtual machine of a lost host ran any more.',
  body: z.object({
    spec: z.object({
      host: z.string().describe('The host that was fenced.'),
      epoch: z
        .int()
        .describe(
          "The epoch of the host's lease since; machines placed under an older one are the lost ones.",
        ),
      proof: z
        .enum(proofs)
        .describe(
          'Guard: the host promised to stop its machines by itself, and the time for that has passed. Watchdog: so did its hardware. Command: a fence command switched it off and its power state was read. Operator: a person said so.',
        ),
      by: z.string().describe('Who wrote this: the leader, or the person.'),
      leaderEpoch: z.int().optional().describe("The epoch of the leader's lease."),
      at: z.string().describe('When, by the clock of the one who wrote it.'),
      silentMs: z
        .int()
        .optional()
        .describe('Monotonic ms for which the lease was seen not to change, when it was taken.'),
      neededMs: z
        .int()
        .optional()
        .describe('Monotonic ms after which the host has stopped its machines, by what it announced.'),
      lease: z
        .object({
          holder: z.string().optional(),
          epoch: z.int(),
          resourceVersion: z.string(),
          renewTime: z.string().optional(),
        })
        .optional()
        .describe('The lease as it was last seen before it was taken.'),
      votes: z
        .array(z.string())
        .default([])
        .describe('Hosts that answered the leader, hold their own leases and agreed.'),
      seen: z.string().describe('What was seen, in words.'),
    }),
  }),
  columns: [
    { name: 'Host', type: 'string', path: '.spec.host' },
    { name: 'Epoch', type: 'integer', path: '.spec.epoch' },
    { name: 'Proof', type: 'string', path: '.spec.proof' },
    { name: 'By', type: 'string', path: '.spec.by' },
    { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' },
    { name: 'Seen', type: 'string', path: '.spec.seen', priority: 1 },
  ],
})
export type FenceEvidence = ObjectOf<typeof FenceEvidence>
