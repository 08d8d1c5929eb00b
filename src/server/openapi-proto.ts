import type { OpenApi } from '../resources/openapi.ts'
import { Double, message } from './protobuf-write.ts'

/** The media type in which kubectl asks for `/openapi/v2`; 1.27 takes no other. It is none by RFC 9110, for its @. */
export const openApiV2Asked = 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf'
/** The one in which Kubernetes answers. */
export const openApiV2Proto = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'

type Json = Readonly<Record<string, unknown>>

const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
const texts = (value: unknown) => (Array.isArray(value) ? (value as string[]) : undefined)
const double = (value: unknown) => (typeof value === 'number' ? new Double(value) : undefined)
const whole = (value: unknown) => (typeof value === 'number' ? BigInt(value) : undefined)

/** An openapi.v2.Any: JSON is YAML. */
const any = (value: unknown) => (value === undefined ? undefined : message({ 2: JSON.stringify(value) }))

function named(values: Json, write: (value: Json) => Buffer): Buffer[] {
  return Object.entries(values).map(([name, value]) => message({ 1: name, 2: write(value as Json) }))
}

function extensions(of: Json): Buffer[] {
  const own = Object.entries(of).filter(([name]) => name.startsWith('x-'))
  return own.map(([name, value]) => message({ 1: name, 2: any(value) }))
}

function schema(of: Json): Buffer {
  const { additionalProperties: others, items, properties, type, enum: values } = of
  const kindOf = typeof type === 'string' ? message({ 1: type }) : undefined
  return message({
    ...{ 1: text(of['$ref']), 2: text(of['format']), 4: text(of['description']), 5: any(of['default']) },
    ...{ 7: double(of['maximum']), 9: double(of['minimum']), 11: whole(of['maxLength']) },
    ...{ 12: whole(of['minLength']), 13: text(of['pattern']), 14: whole(of['maxItems']) },
    ...{ 15: whole(of['minItems']), 19: texts(of['required']) },
    20: Array.isArray(values) ? values.map((value) => any(value) as Buffer) : undefined,
    21: others === undefined ? undefined : message({ 1: schema(others as Json) }),
    22: kindOf,
    23: items === undefined ? undefined : message({ 1: schema(items as Json) }),
    25: properties === undefined ? undefined : message({ 1: named(properties as Json, schema) }),
    31: extensions(of),
  })
}

/** A parameter of a query or a path, as a ParametersItem. */
function parameter(of: Json): Buffer {
  const head = { 2: text(of['in']), 3: text(of['description']), 4: text(of['name']) }
  const type = text(of['type'])
  const one =
    of['in'] === 'path' ? { 4: message({ 1: true, ...head, 5: type }) } : { 3: message({ ...head, 6: type }) }
  return message({ 1: message({ 2: message(one) }) })
}

const parameters = (of: unknown) => (Array.isArray(of) ? of.map((one) => parameter(one as Json)) : undefined)

function response(of: Json): Buffer {
  const { schema: shape, description } = of
  const item = shape === undefined ? undefined : message({ 1: schema(shape as Json) })
  return message({ 1: message({ 1: text(description), 2: item }) })
}

function operation(of: unknown): Buffer | undefined {
  if (of === undefined) return undefined
  const { description, produces, consumes, parameters: own, responses } = of as Json
  return message({
    ...{ 3: text(description), 6: texts(produces), 7: texts(consumes), 8: parameters(own) },
    9: message({ 1: named(responses as Json, response) }),
    13: extensions(of as Json),
  })
}

function pathItem({ get, put, post, delete: remove, patch, parameters: own }: Json): Buffer {
  return message({
    ...{ 2: operation(get), 3: operation(put), 4: operation(post), 5: operation(remove) },
    ...{ 8: operation(patch), 9: parameters(own) },
  })
}

/** An OpenAPI 2.0 document of ours as openapi.v2.Document (gnostic's OpenAPIv2.proto), as far as we use it. */
export function openApiProto({ swagger, info, paths, definitions }: OpenApi): Buffer {
  const { title, version } = info as Json
  return message({
    1: text(swagger),
    2: message({ 1: text(title), 2: text(version) }),
    8: message({ 2: named(paths as Json, pathItem) }),
    9: message({ 1: named(definitions as Json, schema) }),
  })
}
