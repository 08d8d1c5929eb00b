import { PlasmaError } from '../lib/errors.ts'
import { objectSchema } from './crd.ts'
import type { ResourceDefinition } from './define.ts'
import { findKind } from './kinds.ts'
import { metaSchemas } from './meta-schemas.ts'
import type { StructuralSchema } from './schema.ts'

const width = 76

/** Kubernetes' words for a type: `<string>`, `<[]Object>`, `<map[string]string>`. */
export function typeName(schema: StructuralSchema): string {
  if (schema['x-kubernetes-int-or-string']) return 'IntOrString'
  if (schema.items) return `[]${typeName(schema.items)}`
  if (schema.additionalProperties) return `map[string]${typeName(schema.additionalProperties)}`
  return schema.type === 'object' ? 'Object' : (schema.type ?? 'Object')
}

/** Fields a value of this schema has: of its elements where it is a list or a map. */
export function fieldsOf(schema: StructuralSchema): Readonly<Record<string, StructuralSchema>> {
  const inner = schema.items ?? schema.additionalProperties
  return inner ? fieldsOf(inner) : (schema.properties ?? {})
}

function requiredOf(schema: StructuralSchema): readonly string[] {
  const inner = schema.items ?? schema.additionalProperties
  return inner ? requiredOf(inner) : (schema.required ?? [])
}

function wrap(words: string, indent: number): string {
  const pad = ' '.repeat(indent)
  const lines: string[] = []
  let line = ''
  for (const word of words.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].map((one) => `${pad}${one}\n`).join('')
}

const longestDefault = 60

/** What a field may be, and what it is where nothing is said: short ones only. */
function valuesOf(schema: StructuralSchema): readonly (readonly ['enum' | 'default', string])[] {
  const choices = schema.enum ?? schema.items?.enum
  const fallback = schema.default === undefined ? '' : JSON.stringify(schema.default)
  return [
    ...(choices ? [['enum', choices.join(', ')] as const] : []),
    ...(fallback !== '' && fallback.length <= longestDefault ? [['default', fallback] as const] : []),
  ]
}

function fieldLines(schema: StructuralSchema, indent: number, recursive: boolean): string {
  const pad = ' '.repeat(indent)
  const required = requiredOf(schema)
  return Object.entries(fieldsOf(schema))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, field]) => {
      const head = `${pad}${name}\t<${typeName(field)}>${required.includes(name) ? ' -required-' : ''}\n`
      const values = valuesOf(field)
        .map(([what, text]) => `${pad}${what}: ${text}\n`)
        .join('')
      if (recursive) return `${head}${values}${fieldLines(field, indent + 2, true)}`
      return `${head}${values}${wrap(field.description ?? '<no description>', indent + 2)}\n`
    })
    .join('')
}

function wholeOf(kind: ResourceDefinition): StructuralSchema {
  const whole = objectSchema(kind)
  const meta = Object.fromEntries(metaSchemas.all(''))[metaSchemas.objectMetaName] as StructuralSchema
  return { ...whole, properties: { ...whole.properties, metadata: meta } }
}

/**
 * What a kind or one of its fields is, as `kubectl explain` prints it.
 * @param path names of the fields that lead there: `['spec', 'disks']`
 * @throws PlasmaError `FieldNotFound` naming the step that does not exist
 */
export function explainField(kind: ResourceDefinition, path: readonly string[], recursive = false): string {
  let schema = wholeOf(kind)
  for (const [index, name] of path.entries()) {
    const fields = fieldsOf(schema)
    const next = Object.hasOwn(fields, name) ? fields[name] : undefined
    if (!next) {
      throw new PlasmaError('FieldNotFound', `field "${path.slice(0, index + 1).join('.')}" does not exist`, {
        hint: `fields here: ${Object.keys(fields).sort().join(', ') || 'none'}`,
      })
    }
    schema = next
  }
  const fields = fieldLines(schema, 2, recursive)
  const fallback = valuesOf(schema).find(([what]) => what === 'default')
  const choices = schema.enum ?? schema.items?.enum
  const { description } = schema
  return [
    kind.group === '' ? '' : `GROUP:      ${kind.group}\n`,
    `KIND:       ${kind.kind}\nVERSION:    ${kind.version}\n\n`,
    path.length > 0 ? `FIELD: ${path.at(-1)} <${typeName(schema)}>\n` : '',
    choices ? `ENUM:\n${choices.map((one) => `    ${one}\n`).join('')}` : path.length > 0 ? '\n' : '',
    path.length > 0 ? '\n' : '',
    fallback && path.length > 0 ? `DEFAULT: ${fallback[1]}\n\n` : '',
    `DESCRIPTION:\n${description ? `${wrap(description, 4)}    \n` : '    <empty>\n'}`,
    fields === '' ? '' : `FIELDS:\n${fields}`,
    '\n',
  ].join('')
}

/** Names of the fields below `path` of a kind; empty where there is no such place. */
export function fieldNames(kind: ResourceDefinition, path: readonly string[]): readonly string[] {
  let schema: StructuralSchema | undefined = wholeOf(kind)
  for (const name of path) {
    const fields: Readonly<Record<string, StructuralSchema>> = schema ? fieldsOf(schema) : {}
    schema = Object.hasOwn(fields, name) ? fields[name] : undefined
  }
  return schema ? Object.keys(fieldsOf(schema)) : []
}

/**
 * The same for what people type: `vm`, `vm.spec.disks`, `vms.plasmavmc.io`.
 * @throws PlasmaError `KindNotFound` or `FieldNotFound`
 */
export function explain(target: string, options: { readonly recursive?: boolean } = {}): string {
  const [word = '', ...rest] = target.split('.')
  const kind = findKind(word)
  // `vms.plasmavmc.io.spec`: no field has a name with the group in it.
  const group = kind && kind.group !== '' && `${rest.join('.')}.`.startsWith(`${kind.group}.`)
  const path = group ? rest.slice(kind.group.split('.').length) : rest
  if (!kind) {
    throw new PlasmaError('KindNotFound', `there is no resource "${word}"`, {
      hint: '`plasmavmc explain vm` explains virtual machines',
    })
  }
  return explainField(kind, path, options.recursive)
}
