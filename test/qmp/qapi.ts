import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

/** What z.toJSONSchema makes of our tables, as far as they go. */
export interface JsonSchema {
  readonly type?: string | readonly string[]
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly known?: readonly string[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
  readonly items?: JsonSchema
  readonly oneOf?: readonly JsonSchema[]
}

interface Member {
  readonly name: string
  readonly type: string
  /** Present where the member is optional (qapi/introspect.json SchemaInfoObjectMember). */
  readonly default?: null
}

/** qapi/introspect.json SchemaInfo, flattened. */
export interface Entity {
  readonly name: string
  readonly 'meta-type': string
  readonly 'json-type'?: string
  readonly 'element-type'?: string
  readonly 'arg-type'?: string
  readonly 'ret-type'?: string
  readonly 'allow-oob'?: boolean
  readonly members?: readonly Member[]
  readonly values?: readonly string[]
  readonly tag?: string
  readonly variants?: readonly { readonly case: string; readonly type: string }[]
}

const folder = fileURLToPath(new URL('../fixtures/qmp/', import.meta.url))

/** The recorded schemas, oldest QEMU first. */
export function recorded(): readonly Qapi[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json.gz'))
    .map((name) => {
      const dump = JSON.parse(gunzipSync(readFileSync(folder + name)).toString())
      return new Qapi(dump.version, dump.schema)
    })
    .sort((a, b) => Number.parseFloat(a.version) - Number.parseFloat(b.version))
}

const jsonTypes: Readonly<Record<string, readonly string[]>> = {
  string: ['string'],
  int: ['integer'],
  number: ['integer', 'number'],
  boolean: ['boolean'],
  null: ['null'],
}

/** One QEMU's monitor as it describes itself; compares our schemas with it. Every method returns what is wrong. */
export class Qapi {
  readonly version: string
  /** Members and names of ours that this QEMU has; what no QEMU has is a mistake of ours. */
  readonly met = new Set<string>()
  readonly #entities: ReadonlyMap<string, Entity>

  constructor(version: string, entities: readonly Entity[]) {
    this.version = version
    this.#entities = new Map(entities.map((entity) => [entity.name, entity]))
  }

  find(name: string, metaType: 'command' | 'event'): Entity | undefined {
    const entity = this.#entities.get(name)
    return entity?.['meta-type'] === metaType ? entity : undefined
  }

  /** The names of the enumeration that `path` of members leads to from an answer's type. */
  names(type: string, ...path: readonly string[]): readonly string[] {
    const entity = this.#type(type)
    const [first, ...rest] = path
    if (first === undefined) return (entity.members ?? []).map((member) => member.name)
    return this.names(entity.members!.find((member) => member.name === first)!.type, ...rest)
  }

  /** Whether QEMU takes everything that our schema lets us send. */
  sendable(ours: JsonSchema, type: string, at: string): string[] {
    if (ours.oneOf) return ours.oneOf.flatMap((one, i) => this.sendable(one, type, `${at}|${i}`))
    const entity = this.#type(type)
    switch (entity['meta-type']) {
      case 'object':
        return this.#sendableObject(ours, entity, at)
      case 'array':
        if (ours.type !== 'array' || !ours.items) return [`${at}: QEMU wants an array`]
        return this.sendable(ours.items, entity['element-type']!, `${at}[]`)
      case 'enum': {
        const sent = ours.enum ?? ('const' in ours ? [ours.const] : ['any text'])
        const names = this.names(type)
        return sent
          .filter((name) => !names.includes(String(name)))
          .map((name) => `${at}: QEMU has no ${name}`)
      }
      case 'alternate':
        return typesOf(ours)
          .filter((one) => entity.members!.every((m) => this.sendable({ type: one }, m.type, at).length > 0))
          .map((one) => `${at}: QEMU takes no ${one}`)
      default: {
        const json = entity['json-type']!
        if (json === 'value') return []
        const wrong = typesOf(ours).filter((one) => !jsonTypes[json]?.includes(one))
        return wrong.map((one) => `${at}: we send ${one}, QEMU wants ${json}`)
      }
    }
  }

  /** Whether we read everything that QEMU may answer. */
  readable(ours: JsonSchema, type: string, at: string): string[] {
    if (ours.type === undefined) return []
    const entity = this.#type(type)
    switch (entity['meta-type']) {
      case 'object':
        return this.#readableObject(ours, entity, at)
      case 'array':
        if (ours.type !== 'array' || !ours.items) return [`${at}: QEMU answers an array`]
        return this.readable(ours.items, entity['element-type']!, `${at}[]`)
      case 'enum': {
        if (ours.type !== 'string' || ours.enum) return [`${at}: a later QEMU may have more names`]
        const names = this.names(type)
        for (const name of names) this.met.add(`${at}=${name}`)
        return names
          .filter((name) => ours.known && !ours.known.includes(name))
          .map((name) => `${at}: we don't know ${name}`)
      }
      case 'alternate':
        return [`${at}: an alternate, which we never read`]
      default: {
        const read = ours.type === 'number' ? ['int', 'number'] : [ours.type]
        const json = entity['json-type']!
        return read.includes(json) ? [] : [`${at}: QEMU answers ${json}, we read ${ours.type}`]
      }
    }
  }

  #type(name: string): Entity {
    const entity = this.#entities.get(name)
    if (!entity) throw new Error(`the schema of QEMU ${this.version} has no type ${name}`)
    return entity
  }

  #sendableObject(ours: JsonSchema, entity: Entity, at: string): string[] {
    if (ours.type !== 'object') return [`${at}: QEMU wants an object`]
    const chosen = entity.tag === undefined ? undefined : ours.properties?.[entity.tag]?.const
    const variant = entity.variants?.find((one) => one.case === chosen)
    const members = [...(entity.members ?? []), ...(variant ? (this.#type(variant.type).members ?? []) : [])]
    const missing = members
      .filter((member) => !('default' in member) && !ours.required?.includes(member.name))
      .map((member) => `${at}.${member.name}: QEMU requires it`)
    const wrong = Object.entries(ours.properties ?? {}).flatMap(([name, schema]) => {
      const member = members.find((one) => one.name === name)
      return member
        ? this.sendable(schema, member.type, `${at}.${name}`)
        : [`${at}.${name}: QEMU has no such member`]
    })
    return [...missing, ...wrong]
  }

  #readableObject(ours: JsonSchema, entity: Entity, at: string): string[] {
    if (ours.type !== 'object') return [`${at}: QEMU answers an object`]
    return Object.entries(ours.properties ?? {}).flatMap(([name, schema]) => {
      const path = `${at}.${name}`
      const required = ours.required?.includes(name)
      const member = entity.members?.find((one) => one.name === name)
      if (!member) return required ? [`${path}: QEMU answers no such member`] : []
      this.met.add(path)
      const optional = required && 'default' in member ? [`${path}: QEMU may leave it out`] : []
      return [...optional, ...this.readable(schema, member.type, path)]
    })
  }
}

function typesOf(schema: JsonSchema): readonly string[] {
  if (schema.type === undefined) return ['anything']
  return typeof schema.type === 'string' ? [schema.type] : schema.type
}

/** Every optional member and known name below a schema that we read, as `Qapi.met` names them. */
export function expected(ours: JsonSchema, at: string): string[] {
  return [
    ...(ours.known ?? []).map((name) => `${at}=${name}`),
    ...(ours.items ? expected(ours.items, `${at}[]`) : []),
    ...Object.entries(ours.properties ?? {}).flatMap(([name, schema]) => [
      `${at}.${name}`,
      ...expected(schema, `${at}.${name}`),
    ]),
  ]
}
