import { rfc3339 } from '../lib/clock.ts'
import { ApiError } from '../store/errors.ts'

/** The media type of Kubernetes' protobuf, in which kubectl 1.32 and newer sends what it makes of Kubernetes' own kinds. */
export const protobufType = 'application/vnd.kubernetes.protobuf'

/** What a field holds: text, a number, yes or no, a time, a map of texts, or a message; `[]` where it is repeated. */
type FieldType = 'text' | 'number' | 'truth' | 'time' | 'texts' | Message
type Field = readonly [name: string, type: FieldType, repeated?: '[]']
/** Fields by their number in Kubernetes' generated.proto files. */
interface Message {
  readonly [number: number]: Field
}

const owner: Message = {
  ...{ 1: ['kind', 'text'], 3: ['name', 'text'], 4: ['uid', 'text'], 5: ['apiVersion', 'text'] },
  ...{ 6: ['controller', 'truth'], 7: ['blockOwnerDeletion', 'truth'] },
}
const meta: Message = {
  ...{ 1: ['name', 'text'], 2: ['generateName', 'text'], 3: ['namespace', 'text'], 5: ['uid', 'text'] },
  ...{ 6: ['resourceVersion', 'text'], 7: ['generation', 'number'], 8: ['creationTimestamp', 'time'] },
  ...{ 9: ['deletionTimestamp', 'time'], 11: ['labels', 'texts'], 12: ['annotations', 'texts'] },
  ...{ 13: ['ownerReferences', owner, '[]'], 14: ['finalizers', 'text', '[]'] },
}
const rule: Message = {
  ...{ 1: ['verbs', 'text', '[]'], 2: ['apiGroups', 'text', '[]'], 3: ['resources', 'text', '[]'] },
  ...{ 4: ['resourceNames', 'text', '[]'], 5: ['nonResourceURLs', 'text', '[]'] },
}
const subject: Message = {
  ...{ 1: ['kind', 'text'], 2: ['apiGroup', 'text'], 3: ['name', 'text'], 4: ['namespace', 'text'] },
}
const roleRef: Message = { 1: ['apiGroup', 'text'], 2: ['kind', 'text'], 3: ['name', 'text'] }
const resource: Message = {
  ...{ 1: ['namespace', 'text'], 2: ['verb', 'text'], 3: ['group', 'text'], 4: ['version', 'text'] },
  ...{ 5: ['resource', 'text'], 6: ['subresource', 'text'], 7: ['name', 'text'] },
}
const access: Message = {
  1: ['resourceAttributes', resource],
  2: ['nonResourceAttributes', { 1: ['path', 'text'], 2: ['verb', 'text'] }],
}
const namespaceStatus: Message = { 1: ['phase', 'text'] }
const role: Message = { 1: ['metadata', meta], 2: ['rules', rule, '[]'] }
const binding: Message = { 1: ['metadata', meta], 2: ['subjects', subject, '[]'], 3: ['roleRef', roleRef] }

/** What kubectl makes in protobuf: `create namespace|role|rolebinding|…`, `auth can-i`, `auth whoami`. */
const messages: Readonly<Record<string, Message>> = {
  'v1 Namespace': {
    ...{ 1: ['metadata', meta], 2: ['spec', { 1: ['finalizers', 'text', '[]'] }] },
    3: ['status', namespaceStatus],
  },
  'rbac.authorization.k8s.io/v1 Role': role,
  'rbac.authorization.k8s.io/v1 ClusterRole': role,
  'rbac.authorization.k8s.io/v1 RoleBinding': binding,
  'rbac.authorization.k8s.io/v1 ClusterRoleBinding': binding,
  'authorization.k8s.io/v1 SelfSubjectAccessReview': { 1: ['metadata', meta], 2: ['spec', access] },
  'authorization.k8s.io/v1 SelfSubjectRulesReview': {
    ...{ 1: ['metadata', meta], 2: ['spec', { 1: ['namespace', 'text'] }] },
  },
  'authentication.k8s.io/v1 SelfSubjectReview': { 1: ['metadata', meta] },
}

const magic = Buffer.from('k8s\0', 'latin1')
const typeMeta: Message = { 1: ['apiVersion', 'text'], 2: ['kind', 'text'] }
const maxFields = 100_000

function bad(why: string): ApiError {
  return new ApiError('BadRequest', `the body is no protobuf of Kubernetes: ${why}`)
}

/** Reads the wire format (protobuf.dev/programming-guides/encoding) from left to right. */
class Wire {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get ended(): boolean {
    return this.#at >= this.#bytes.length
  }

  varint(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at]
      if (byte === undefined) throw bad('it ends within a number')
      this.#at += 1
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asIntN(64, value)
    }
    throw bad('a number is too long')
  }

  block(): Buffer {
    const length = this.varint()
    if (length < 0n || length > BigInt(this.#bytes.length - this.#at)) throw bad('it ends within a field')
    return this.bytes(Number(length))
  }

  bytes(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) throw bad('it ends within a field')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }
}

/** The fields of a message, in order: a number, or bytes. */
function* fieldsOf(bytes: Buffer): Generator<readonly [number: number, value: bigint | Buffer]> {
  const wire = new Wire(bytes)
  for (let count = 0; !wire.ended; count += 1) {
    if (count >= maxFields) throw bad('it has too many fields')
    const key = wire.varint()
    const type = Number(key & 7n)
    const number = Number(key >> 3n)
    if (type === 0) yield [number, wire.varint()]
    else if (type === 2) yield [number, wire.block()]
    else if (type === 1) yield [number, wire.bytes(8)]
    else if (type === 5) yield [number, wire.bytes(4)]
    else throw bad(`a field has the unknown type ${type}`)
  }
}

function textOf(value: bigint | Buffer): string {
  if (typeof value === 'bigint') throw bad('a text is a number')
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value)
  } catch (cause) {
    throw new ApiError('BadRequest', 'the body is not valid UTF-8', {}, { cause })
  }
}

function numberOf(value: bigint | Buffer): number {
  if (typeof value !== 'bigint') throw bad('a number is a text')
  return Number(value)
}

function blockOf(value: bigint | Buffer): Buffer {
  if (typeof value === 'bigint') throw bad('a message is a number')
  return value
}

/** metav1.Time: seconds since the epoch; nothing where it is zero, which Go writes for no time. */
function timeOf(value: bigint | Buffer): string | undefined {
  const seconds = [...fieldsOf(blockOf(value))].find(([number]) => number === 1)?.[1]
  if (seconds === undefined) return undefined
  const ms = numberOf(seconds) * 1000
  if (Math.abs(ms) > 8.64e15) throw bad('a time is out of range')
  return rfc3339(ms)
}

function readValue(type: FieldType, value: bigint | Buffer): unknown {
  if (type === 'text') return textOf(value)
  if (type === 'number') return numberOf(value)
  if (type === 'truth') return numberOf(value) !== 0
  if (type === 'time') return timeOf(value)
  return messageOf(type as Message, blockOf(value))
}

/** A map's entry: the key is field 1, the value field 2. */
function entryOf(value: bigint | Buffer): readonly [string, string] {
  const fields = new Map(fieldsOf(blockOf(value)))
  return [textOf(fields.get(1) ?? Buffer.alloc(0)), textOf(fields.get(2) ?? Buffer.alloc(0))]
}

/** Empty members are left out, as Go's JSON leaves them out; unknown fields, too. */
function messageOf(message: Message, bytes: Buffer): Record<string, unknown> {
  const found: Record<string, unknown> = {}
  const maps = new Map<string, [string, string][]>()
  for (const [number, value] of fieldsOf(bytes)) {
    const field = Object.hasOwn(message, number) ? message[number] : undefined
    if (!field) continue
    const [name, type, repeated] = field
    if (type === 'texts') maps.set(name, [...(maps.get(name) ?? []), [...entryOf(value)]])
    else if (repeated) found[name] = [...((found[name] as unknown[]) ?? []), readValue(type, value)]
    else {
      const one = readValue(type, value)
      if (one === undefined || one === '' || (type === 'number' && one === 0)) delete found[name]
      else found[name] = one
    }
  }
  return { ...found, ...Object.fromEntries([...maps].map(([name, all]) => [name, Object.fromEntries(all)])) }
}

/**
 * An object from Kubernetes' protobuf: the magic bytes, then runtime.Unknown with the type and the message.
 * @throws ApiError BadRequest for what is none; UnsupportedMediaType for a kind that is only read as JSON here
 */
export function parseProtobuf(raw: Buffer): unknown {
  if (!raw.subarray(0, magic.length).equals(magic)) throw bad('its first bytes are not k8s and zero')
  const envelope = new Map(fieldsOf(raw.subarray(magic.length)))
  const { apiVersion = '', kind = '' } = messageOf(typeMeta, blockOf(envelope.get(1) ?? Buffer.alloc(0)))
  const name = `${apiVersion} ${kind}`
  const message = Object.hasOwn(messages, name) ? messages[name] : undefined
  if (!message)
    throw new ApiError(
      'UnsupportedMediaType',
      `${JSON.stringify(name.slice(0, 100))} is not read from ${protobufType} here; use application/json`,
    )
  return { apiVersion, kind, ...messageOf(message, blockOf(envelope.get(2) ?? Buffer.alloc(0))) }
}
