import { z } from 'zod'
import { defineResource, type ObjectOf } from './define.ts'
import { type Cause, same } from './parse.ts'

/** Kubernetes' limit on what the values of a ConfigMap or Secret hold in all, bytes. */
const maxBytes = 1024 * 1024

const badForm =
  "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name', or 'KEY_NAME', or 'key-name')"

/** Why a key may not be one (apimachinery validation.IsConfigMapKey); undefined where it may. */
function wrongKey(key: string): string | undefined {
  if (key.length > 253) return 'must be no more than 253 characters'
  if (!/^[-._a-zA-Z0-9]+$/.test(key)) return badForm
  if (key === '.' || key === '..') return `must not be '${key}'`
  return key.startsWith('..') ? "must not start with '..'" : undefined
}

type Texts = Readonly<Record<string, string>>

interface Content {
  readonly data?: Texts
  readonly binaryData?: Texts
  readonly immutable?: boolean
}

function keysHold({ data = {}, binaryData = {} }: Content) {
  for (const [member, values] of Object.entries({ data, binaryData })) {
    for (const key of Object.keys(values)) {
      const twice = member === 'binaryData' && Object.hasOwn(data, key)
      const message = wrongKey(key) ?? (twice ? 'duplicate of key present in data' : undefined)
      if (message !== undefined) return { field: `${member}[${key}]`, value: key, message }
    }
  }
  return true
}

const notBase64 = 'must be base64 (RFC 4648)'

/** The bytes of a text in base64 (RFC 4648 section 4, with line breaks as Go takes them); undefined where it is none. */
function decoded(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text.replace(/[\r\n]/g, '') ? bytes : undefined
}

function valuesHold({ data = {}, binaryData = {} }: Content) {
  let size = Object.values(data).reduce((sum, text) => sum + Buffer.byteLength(text), 0)
  for (const [key, text] of Object.entries(binaryData)) {
    const bytes = decoded(text)
    if (!bytes) return { field: `binaryData[${key}]`, value: text.slice(0, 50), message: notBase64 }
    size += bytes.length
  }
  const message = `may not be more than ${maxBytes} bytes`
  return size <= maxBytes || { field: '', message, reason: 'FieldValueTooLong' as const }
}

/**
 * Findings where an update changes what `immutable`, once set, forbids to change.
 * @param members those besides `immutable` itself
 */
export function immutables<T extends { readonly immutable?: boolean }>(
  before: T,
  after: T,
  members: readonly (keyof T & string)[],
): Cause[] {
  if (!before.immutable) return []
  const message = 'Forbidden: field is immutable when `immutable` is set'
  const changed = members.filter((member) => !same(before[member] ?? {}, after[member] ?? {}))
  const all = after.immutable ? changed : ['immutable', ...changed]
  return all.map((field) => ({ reason: 'FieldValueForbidden', field, message }))
}

/** A count as Kubernetes' column Data shows it. */
export const dataColumn = {
  name: 'Data',
  type: 'integer',
  path: '.data',
  value: ({ data = {}, binaryData = {} }: Content) =>
    Object.keys(data).length + Object.keys(binaryData).length,
} as const

export const ConfigMap = defineResource({
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  shortNames: ['cm'],
  hasStatus: false,
  description: "Kubernetes' ConfigMap: texts and small files for whoever reads them. No machine does.",
  body: z.object({
    data: z.record(z.string(), z.string()).optional().describe('Texts by their keys, 1 MiB in all.'),
    binaryData: z
      .record(z.string(), z.string().meta({ format: 'byte' }))
      .optional()
      .describe('Bytes in base64, by keys that are none of data.'),
    immutable: z
      .boolean()
      .optional()
      .describe('From then on only metadata may change, and it can be deleted.'),
  }),
  rules: [
    { at: '', cel: '', message: 'keys are letters, digits, -, _ and ., each used once', holds: keysHold },
    {
      at: '',
      cel: '',
      message: `values are 1 MiB in all; of binaryData they ${notBase64}`,
      holds: valuesHold,
    },
  ],
  changes: (before: Content, after: Content) => immutables(before, after, ['data', 'binaryData']),
  columns: [dataColumn, { name: 'Age', type: 'date', path: '.metadata.creationTimestamp' }],
})
export type ConfigMap = ObjectOf<typeof ConfigMap>
