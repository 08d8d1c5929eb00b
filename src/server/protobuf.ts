import { ApiError } from '../store/errors.ts'

/** Maps by what their values are: texts, bytes, which JSON has in base64, or lists of texts. */
type MapType = 'texts' | 'blobs' | 'textLists'

/** What a field holds: text, a number, a yes or no, a time, a map, or a message. */
export type FieldType = 'string' | 'int' | 'bool' | 'time' | MapType | Message

/** A field of a message, as JSON knows it. */
export interface Field {
  readonly name: string
  readonly type: FieldType
  readonly repeated?: boolean
}

/** A message by the numbers of its fields; what is not listed is passed over. */
export type Message = ReadonlyMap<number, Field>

/** What begins Kubernetes' protobuf (docs "Kubernetes Protobuf encoding"). */
const magic = Buffer.from('k8s\0')

/** The wrapper: what it is, and its bytes (k8s.io/apimachinery/pkg/runtime Unknown). */
const typeMeta: Message = new Map([
  [1, { name: 'apiVersion', type: 'string' }],
  [2, { name: 'kind', type: 'string' }],
])

interface Piece {
  readonly field: number
  readonly value: bigint | Buffer
}

function bad(why: string): ApiError {
  return new ApiError('BadRequest', `the body is not Kubernetes' protobuf: ${why}`)
}

/** A number of variable length at a place (protobuf "Base 128 Varints"), and the place after it. */
function varint(bytes: Buffer, from: number): readonly [bigint, number] {
  let value = 0n
  for (let i = 0; i < 10; i += 1) {
    const byte = bytes[from + i]
    if (byte === undefined) throw bad('it ends within a number')
    value |= BigInt(byte & 0x7f) << BigInt(7 * i)
    if (byte < 0x80) return [BigInt.asUintN(64, value), from + i + 1]
  }
  throw bad('a number is too long')
}

/** The fields of a message one after the other, whatever they mean. */
function* pieces(bytes: Buffer): Generator<Piece> {
  for (let at = 0; at < bytes.length; ) {
    const [tag, after] = varint(bytes, at)
    const [field, wire] = [Number(tag >> 3n), Number(tag & 7n)]
    if (wire === 0) {
      const [value, next] = varint(bytes, after)
      at = next
      yield { field, value }
      continue
    }
    const [length, start] = wire === 2 ? varint(bytes, after) : [wire === 1 ? 8n : 4n, after]
    if (wire !== 2 && wire !== 1 && wire !== 5) throw bad(`wire type ${wire} is not known`)
    if (length > BigInt(bytes.length - start)) throw bad('it ends within a field')
    at = start + Number(length)
    if (wire === 2) yield { field, value: bytes.subarray(start, at) }
  }
}

function text(value: Piece['value']): string {
  if (typeof value === 'bigint') throw bad('a number stands where text belongs')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(value)
  } catch (error) {
    throw new ApiError('BadRequest', 'the body is not valid UTF-8', {}, { cause: error })
  }
}

function whole(value: Piece['value']): bigint {
  if (typeof value !== 'bigint') throw bad('bytes stand where a number belongs')
  return value
}

function part(value: Piece['value']): Buffer {
  if (typeof value === 'bigint') throw bad('a number stands where a message belongs')
  return value
}

/** The latest of a field's values; undefined where Go's JSON would leave it out. */
function jsonOf(type: FieldType, value: Piece['value']): unknown {
  if (type === 'string') return text(value) || undefined
  if (type === 'int') return Number(BigInt.asIntN(64, whole(value))) || undefined
  if (type === 'bool') return whole(value) !== 0n
  if (type === 'time') return timeOf(part(value))
  if (isMap(type)) return entryOf(type, part(value))
  return messageOf(type, part(value))
}

const timeMessage: Message = new Map([[1, { name: 'seconds', type: 'int' }]])

/** RFC 3339; nothing for the zero that says "not set". */
function timeOf(bytes: Buffer): string | undefined {
  const { seconds } = messageOf(timeMessage, bytes) as { seconds?: number }
  if (seconds === undefined) return undefined
  const date = new Date(seconds * 1000)
  if (Number.isNaN(date.getTime())) throw bad('a time is out of range')
  return `${date.toISOString().slice(0, 19)}Z`
}

const items: Message = new Map([[1, { name: 'items', type: 'string', repeated: true }]])

const isMap = (type: FieldType): type is MapType =>
  type === 'texts' || type === 'blobs' || type === 'textLists'

/** An entry of a map: its key, then its value. */
function entryOf(type: MapType, bytes: Buffer): Record<string, unknown> {
  let [key, value]: [string, unknown] = ['', type === 'textLists' ? [] : '']
  for (const piece of pieces(bytes)) {
    if (piece.field === 1) key = text(piece.value)
    if (piece.field !== 2) continue
    if (type === 'texts') value = text(piece.value)
    else if (type === 'blobs') value = part(piece.value).toString('base64')
    else value = (messageOf(items, part(piece.value)) as { items?: string[] }).items ?? []
  }
  return Object.fromEntries([[key, value]])
}

/** A message as JSON has it. */
export function messageOf(message: Message, bytes: Buffer): Record<string, unknown> {
  const found = new Map<string, unknown>()
  for (const { field, value } of pieces(bytes)) {
    const known = message.get(field)
    if (!known) continue
    const { name, type, repeated } = known
    if (repeated) {
      const list = (found.get(name) as unknown[] | undefined) ?? []
      // An empty text is an element, too: "" is the core group.
      list.push(type === 'string' ? text(value) : jsonOf(type, value))
      found.set(name, list)
    } else if (isMap(type)) {
      const entries = Object.entries(jsonOf(type, value) as object)
      found.set(name, [...((found.get(name) as unknown[] | undefined) ?? []), ...entries])
    } else found.set(name, jsonOf(type, value))
  }
  const maps = new Set([...message.values()].filter(({ type }) => isMap(type)))
  for (const { name } of maps)
    if (found.has(name)) found.set(name, Object.fromEntries(found.get(name) as [string, unknown][]))
  return Object.fromEntries([...found].filter(([, value]) => value !== undefined))
}

/**
 * A body in Kubernetes' protobuf as the JSON it stands for: kubectl and Go clients send their own kinds so.
 * @param messageFor the message of a kind, undefined where it is not known here
 * @throws ApiError BadRequest, UnsupportedMediaType
 */
export function decodeProtobuf(
  raw: Buffer,
  messageFor: (apiVersion: string, kind: string) => Message | undefined,
): unknown {
  if (!raw.subarray(0, magic.length).equals(magic)) throw bad('it does not begin with k8s')
  let [meta, body, encoding] = [Buffer.alloc(0), Buffer.alloc(0), '']
  for (const { field, value } of pieces(raw.subarray(magic.length))) {
    if (field === 1) meta = Buffer.from(part(value))
    if (field === 2) body = Buffer.from(part(value))
    if (field === 3) encoding = text(value)
  }
  const { apiVersion = '', kind = '' } = messageOf(typeMeta, meta) as { apiVersion?: string; kind?: string }
  const message = messageFor(apiVersion, kind)
  if (!message || encoding !== '') {
    const what = `${kind} of ${apiVersion}`.slice(0, 200)
    throw new ApiError(
      'UnsupportedMediaType',
      `protobuf of ${what} is not understood here; use application/json`,
    )
  }
  return { ...messageOf(message, body), apiVersion, kind }
}
