/** What a field of a protobuf message is written from: text, numbers, yes or no, or a message that is written already. */
export type ProtoValue =
  | string
  | boolean
  | bigint
  | Buffer
  | readonly (string | Buffer)[]
  | Double
  | undefined

/** A number that is written as a double. */
export class Double {
  readonly value: number

  constructor(value: number) {
    this.value = value
  }
}

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  for (let rest = BigInt.asUintN(64, value); ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 0x7fn) | 0x80)
  }
}

const head = (number: number, type: number) => varint(BigInt((number << 3) | type))

function block(number: number, content: Buffer): Buffer {
  return Buffer.concat([head(number, 2), varint(BigInt(content.length)), content])
}

function field(number: number, value: ProtoValue): Buffer {
  if (value === undefined) return Buffer.alloc(0)
  if (typeof value === 'string') return block(number, Buffer.from(value))
  if (Buffer.isBuffer(value)) return block(number, value)
  if (typeof value === 'bigint' || typeof value === 'boolean')
    return Buffer.concat([head(number, 0), varint(BigInt(value))])
  if (value instanceof Double) {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value.value)
    return Buffer.concat([head(number, 1), bytes])
  }
  return Buffer.concat(value.map((one) => field(number, one)))
}

/** A protobuf message (protobuf.dev/programming-guides/encoding) from its fields by number; undefined ones are left out. */
export function message(fields: Readonly<Record<number, ProtoValue>>): Buffer {
  return Buffer.concat(Object.entries(fields).map(([number, value]) => field(Number(number), value)))
}
