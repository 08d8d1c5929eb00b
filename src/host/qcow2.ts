import { open } from 'node:fs/promises'
import { PlasmaError } from '../lib/errors.ts'

const magic = 0x514649fb
const extensions = { end: 0, backingFormat: 0xe2792aca } as const
const externalData = 0b100
const longestName = 1023
/** The header, its extensions and the name of the backing file lie in the first cluster, of 64 KiB by default. */
const headBytes = 64 << 10

/** What a qcow2 header says (QEMU docs/interop/qcow2.txt). */
export interface Qcow2Header {
  readonly virtualBytes: number
  readonly backing?: { readonly name: string; readonly format?: string }
  /** Its data lie in another file. */
  readonly externalData: boolean
}

function damaged(why: string): PlasmaError {
  return new PlasmaError('ImageDamaged', `its qcow2 header is damaged: ${why}`)
}

function backingFormat(head: Buffer, from: number): string | undefined {
  for (let at = from; at + 8 <= head.length; ) {
    const [type, length] = [head.readUInt32BE(at), head.readUInt32BE(at + 4)]
    if (type === extensions.end) return undefined
    if (at + 8 + length > head.length) throw damaged('an extension leads out of it')
    if (type === extensions.backingFormat) return head.toString('latin1', at + 8, at + 8 + length)
    at += 8 + Math.ceil(length / 8) * 8
  }
  return undefined
}

/** Reads a qcow2 header. @throws PlasmaError `NotQcow2`, `ImageDamaged` */
export function parseQcow2(head: Buffer): Qcow2Header {
  if (head.length < 72 || head.readUInt32BE(0) !== magic)
    throw new PlasmaError('NotQcow2', 'it is not a qcow2 image')
  const version = head.readUInt32BE(4)
  if (version !== 2 && version !== 3) throw damaged(`version ${version}`)
  if (version === 3 && head.length < 104) throw damaged('it is too short')
  const features = version === 3 ? head.readBigUInt64BE(72) : 0n
  const [offset, length] = [head.readBigUInt64BE(8), head.readUInt32BE(16)]
  const common = {
    virtualBytes: Number(head.readBigUInt64BE(24)),
    externalData: (features & BigInt(externalData)) !== 0n,
  }
  if (offset === 0n) return common
  if (length > longestName || offset + BigInt(length) > BigInt(head.length))
    throw damaged('the name of its backing file leads out of it')
  const at = Number(offset)
  const format = backingFormat(head.subarray(0, at), version === 3 ? head.readUInt32BE(100) : 72)
  const name = head.toString('utf8', at, at + length)
  return { ...common, backing: { name, ...(format === undefined ? {} : { format }) } }
}

/** The header of a file. @throws PlasmaError `NotQcow2`, `ImageDamaged`; errors of the file system */
export async function qcow2Header(path: string): Promise<Qcow2Header> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
    return parseQcow2(buffer.subarray(0, bytesRead))
  } finally {
    await file.close()
  }
}
