import { z } from 'zod'
import { defineResource, type ObjectOf } from './define.ts'

/**
 * What an access key stands for. Its secret is no part of it: that is answered once, by the request that makes the key,
 * and kept encrypted where no API reads.
 */
export const AccessKey = defineResource({
  kind: 'AccessKey',
  plural: 'accesskeys',
  shortNames: ['ak'],
  namespaced: false,
  names: 'key',
  description:
    'A key that requests are signed with. Its id is its name in capitals; its secret is told once, when it is made.',
  body: z.object({
    spec: z.object({
      user: z.string().min(1).max(253).describe('Who signs with it.'),
      groups: z
        .array(z.string().min(1).max(253))
        .max(100)
        .default([])
        .describe('Groups of the user, besides system:authenticated.'),
      expiresAt: z.iso
        .datetime({ offset: true, error: 'must be an RFC 3339 time such as 2026-12-31T00:00:00Z' })
        .optional()
        .describe('From then on it is refused; never where absent.'),
      disabled: z.boolean().default(false).describe('It is refused for now.'),
    }),
    status: z
      .object({
        lastUsed: z
          .string()
          .optional()
          .describe('When a request was last signed with it, to the hour: it is written that often at most.'),
      })
      .optional(),
  }),
  columns: [
    { name: 'User', type: 'string', path: '.spec.user' },
    { name: 'Groups', type: 'string', path: '.spec.groups', value: groupsOf },
    { name: 'Disabled', type: 'string', path: '.spec.disabled' },
    { name: 'Expires', type: 'string', path: '.spec.expiresAt' },
    { name: 'Last Used', type: 'date', path: '.status.lastUsed' },
    { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' },
  ],
})
export type AccessKey = ObjectOf<typeof AccessKey>

/** As another version may have stored it: with anything missing. */
function groupsOf({ spec }: { readonly spec?: { readonly groups?: readonly string[] } }): string | undefined {
  return spec?.groups?.join(',')
}

/** The id that requests name, of the key of a name. */
export function accessKeyId(name: string): string {
  return name.toUpperCase()
}

/** What names of keys look like: as ids are written into signatures (letters, digits, -). */
export const accessKeyName = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
