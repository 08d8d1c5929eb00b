/** What servers load of a protocol of gRPC in place of its .proto file. */
import { createRequire } from 'node:module'
import { basename } from 'node:path'

// The protobufjs that proto-loader brings, which also reads what is made here.
const loader = createRequire(createRequire(import.meta.url).resolve('@grpc/proto-loader'))
const protobuf = loader('protobufjs')
const { FileDescriptorProto } = loader('protobufjs/ext/descriptor')

interface Field {
  typeName?: string
  oneofIndex?: number
  proto3Optional?: boolean
}
interface Message {
  name: string
  field?: Field[]
  nestedType?: Message[]
  enumType?: { name: string }[]
  oneofDecl?: { name: string }[]
  options?: { mapEntry?: boolean }
}
interface File {
  name: string
  package: string
  messageType: Message[]
  enumType?: { name: string }[]
  service: { method: { inputType: string; outputType: string }[] }[]
}

/**
 * As JSON text: `messages`, from which protobufjs codes and decodes, and `file`, a FileDescriptorProto in base64, which
 * the reflection service tells.
 */
export function protocolJson(file: string): string {
  const root = new protobuf.Root().loadSync(file, { keepCase: true })
  const messages = root.toJSON()
  const [made] = root.toDescriptor('proto3').file
  const told = { ...asCompiled(FileDescriptorProto.toObject(made) as File), name: basename(file) }
  const bytes = Buffer.from(FileDescriptorProto.encode(FileDescriptorProto.fromObject(told)).finish())
  return `${JSON.stringify({ messages, file: bytes.toString('base64') }, null, 2)}\n`
}

/**
 * What protobufjs describes loosely as protoc has it, and as clients insist on: whole names of types, entries of maps by
 * their name, and which fields are `optional`.
 */
function asCompiled(file: File): File {
  const scope = `.${file.package}`
  const known = new Set([...namesIn(file, scope)])
  for (const message of file.messageType) completeMessage(message, scope, known)
  for (const { method } of file.service) {
    for (const one of method) {
      one.inputType = wholeName(one.inputType, scope, known)
      one.outputType = wholeName(one.outputType, scope, known)
    }
  }
  return file
}

function namesIn(
  at: { messageType?: Message[]; nestedType?: Message[]; enumType?: { name: string }[] },
  scope: string,
) {
  const names: string[] = (at.enumType ?? []).map(({ name }) => `${scope}.${name}`)
  for (const message of at.messageType ?? at.nestedType ?? []) {
    names.push(`${scope}.${message.name}`, ...namesIn(message, `${scope}.${message.name}`))
  }
  return names
}

function completeMessage(message: Message, outer: string, known: ReadonlySet<string>): void {
  const scope = `${outer}.${message.name}`
  const entries = (message.nestedType ?? []).filter(({ options }) => options?.mapEntry)
  for (const field of message.field ?? []) {
    const oneof = field.oneofIndex === undefined ? undefined : message.oneofDecl?.[field.oneofIndex]
    if (oneof?.name.startsWith('_')) field.proto3Optional = true
    if (field.typeName === undefined) continue
    const isMap = entries.some(({ name }) => name === field.typeName)
    field.typeName = isMap ? `${scope}.${field.typeName}Entry` : wholeName(field.typeName, scope, known)
  }
  for (const nested of message.nestedType ?? []) {
    if (nested.options?.mapEntry) nested.name += 'Entry'
    completeMessage(nested, scope, known)
  }
}

/** A name by the scoping rules of C++, innermost first. @throws Error for a name that is not in the file */
function wholeName(name: string, scope: string, known: ReadonlySet<string>): string {
  if (name.startsWith('.')) return name
  for (let at = scope; at !== ''; at = at.slice(0, at.lastIndexOf('.')))
    if (known.has(`${at}.${name}`)) return `${at}.${name}`
  throw new Error(`${name}: no such type in ${scope}`)
}
