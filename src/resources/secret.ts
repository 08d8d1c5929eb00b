import { z } from 'zod'
import { dataColumn, immutables } from './config-map.ts'
import { defineResource, type ObjectOf } from './define.ts'
import type { Cause } from './parse.ts'

/** Types whose Secrets Kubernetes takes with certain data alone, or fills with it. */
const madeOfData: ReadonlySet<string> = new Set([
  'kubernetes.io/service-account-token',
  'kubernetes.io/dockercfg',
  'kubernetes.io/dockerconfigjson',
  'kubernetes.io/basic-auth',
  'kubernetes.io/ssh-auth',
  'kubernetes.io/tls',
])

const why = 'nothing here keeps it safely at rest, so Secrets are parents of apply sets only'

/** What stands there is not told again: it may be a password. */
const refused = (at: 'data' | 'stringData') => ({
  at,
  cel: '',
  message: `must be empty: ${why}`,
  holds: (values: Readonly<Record<string, string>>) =>
    Object.keys(values).length === 0 || { field: '', reason: 'FieldValueForbidden' as const },
})

const texts = () => z.record(z.string(), z.string()).optional().describe('Not kept here: must be empty.')

export const Secret = defineResource({
  group: '',
  version: 'v1',
  kind: 'Secret',
  plural: 'secrets',
  hasStatus: false,
  description:
    "Kubernetes' Secret, without any data: kubectl keeps in its metadata what is in an apply set (apply --prune --applyset).",
  body: z.object({
    type: z.string().default('Opaque').describe('Cannot be changed.'),
    immutable: z.boolean().optional().describe('Cannot be unset.'),
    data: texts(),
    stringData: texts(),
  }),
  rules: [
    refused('data'),
    refused('stringData'),
    {
      at: 'type',
      cel: '',
      message: `must be of a type that needs no data: ${why}`,
      holds: (type: string) => !madeOfData.has(type),
    },
  ],
  changes,
  columns: [
    { name: 'Type', type: 'string', path: '.type' },
    dataColumn,
    { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' },
  ],
})
export type Secret = ObjectOf<typeof Secret>

interface Content {
  readonly type: string
  readonly immutable?: boolean
}

function changes(before: Content, after: Content): Cause[] {
  const findings = immutables(before, after, [])
  if (before.type === after.type) return findings
  const message = `Invalid value: ${JSON.stringify(after.type)}: field is immutable`
  return [...findings, { reason: 'FieldValueInvalid', field: 'type', message }]
}
