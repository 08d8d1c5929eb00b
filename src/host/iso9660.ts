import { PlasmaError } from '../lib/errors.ts'

/** One file of the root directory. `name` is what Linux and Windows show (Joliet). */
export interface IsoFile {
  readonly name: string
  readonly content: Uint8Array
}

const sector = 2048
/** Sectors 0 to 15 are the system area; what follows is placed in this order (ECMA-119, 6.2). */
const at = {
  primary: 16,
  joliet: 17,
  end: 18,
  paths: 19,
  jolietPaths: 21,
  root: 23,
  jolietRoot: 24,
  data: 25,
}

type Encode = (text: string) => Buffer

const ascii: Encode = (text) => Buffer.from(text, 'latin1')
/** Joliet writes UCS-2, high byte first. */
const ucs2: Encode = (text) => Buffer.from(text, 'utf16le').swap16()

/** A number in both byte orders (ECMA-119, 7.2.3 and 7.3.3). */
function both16(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt16LE(value, 0)
  out.writeUInt16BE(value, 2)
  return out
}

function both32(value: number): Buffer {
  const out = Buffer.alloc(8)
  out.writeUInt32LE(value, 0)
  out.writeUInt32BE(value, 4)
  return out
}

/** A directory record (ECMA-119, 9.1). The time is 1970 so that equal content gives equal bytes. */
function record(identifier: Buffer, location: number, length: number, directory: boolean): Buffer {
  const size = 33 + identifier.length + (identifier.length % 2 === 0 ? 1 : 0)
  const out = Buffer.alloc(size)
  out[0] = size
  both32(location).copy(out, 2)
  both32(length).copy(out, 10)
  Buffer.from([70, 1, 1, 0, 0, 0, 0]).copy(out, 18)
  out[25] = directory ? 2 : 0
  both16(1).copy(out, 28)
  out[32] = identifier.length
  identifier.copy(out, 33)
  return out
}

/** A volume descriptor: primary, or Joliet's supplementary one (ECMA-119, 8.4 and 8.5). */
function descriptor(label: string, encode: Encode, joliet: boolean, sectors: number): Buffer {
  const out = Buffer.alloc(sector)
  const text = (offset: number, length: number, value: string) => {
    const blank = encode(' ')
    for (let i = offset; i + blank.length <= offset + length; i += blank.length) blank.copy(out, i)
    encode(value).copy(out, offset, 0, length)
  }
  const root = joliet ? at.jolietRoot : at.root
  const paths = joliet ? at.jolietPaths : at.paths
  out[0] = joliet ? 2 : 1
  out.write('CD001', 1, 'latin1')
  out[6] = 1
  text(8, 32, '')
  text(40, 32, label)
  both32(sectors).copy(out, 80)
  // UCS-2 level 3 (Joliet specification, "escape sequences").
  if (joliet) out.write('%/E', 88, 'latin1')
  both16(1).copy(out, 120)
  both16(1).copy(out, 124)
  both16(sector).copy(out, 128)
  both32(10).copy(out, 132)
  out.writeUInt32LE(paths, 140)
  out.writeUInt32BE(paths + 1, 148)
  record(Buffer.from([0]), root, sector, true).copy(out, 156)
  text(190, 623, '')
  // Four times "not specified": digits zero, zone zero (ECMA-119, 8.4.26.1).
  for (const offset of [813, 830, 847, 864]) out.write('0'.repeat(16), offset, 'latin1')
  out[881] = 1
  return out
}

/** The path table: one entry, the root (ECMA-119, 9.4). */
function pathTable(root: number, big: boolean): Buffer {
  const out = Buffer.alloc(sector)
  out[0] = 1
  if (big) out.writeUInt32BE(root, 2)
  else out.writeUInt32LE(root, 2)
  if (big) out.writeUInt16BE(1, 6)
  else out.writeUInt16LE(1, 6)
  return out
}

/** The plain name for readers without Joliet: eight capital letters, digits and _ (ECMA-119, level 1). */
function plainName(name: string): string {
  const [stem = '', extension = ''] = name.toUpperCase().split('.')
  const clean = (text: string, length: number) => text.replace(/[^A-Z0-9_]/g, '_').slice(0, length)
  return `${clean(stem, 8)}.${clean(extension, 3)};1`
}

function directory(location: number, records: readonly Buffer[]): Buffer {
  const dots = [0, 1].map((name) => record(Buffer.from([name]), location, sector, true))
  const bytes = Buffer.concat([...dots, ...[...records].sort((a, b) => a.compare(b, 33, undefined, 33))])
  if (bytes.length > sector) throw new PlasmaError('IsoTooManyFiles', 'more files than one directory sector')
  return Buffer.concat([bytes, Buffer.alloc(sector - bytes.length)])
}

const sectorsOf = (bytes: number) => Math.ceil(bytes / sector)

/**
 * An ISO 9660 image (ECMA-119) with Joliet names, holding a few files in its root directory. The same input gives
 * the same bytes. `label` is the volume identifier, written as given: cloud-init looks for `cidata`.
 * @throws PlasmaError `IsoTooManyFiles` where the names don't fit one sector (some 40 short ones do).
 */
export function isoImage(label: string, files: readonly IsoFile[]): Buffer {
  let next = at.data
  const placed = files.map((file) => {
    const location = next
    next += sectorsOf(file.content.length)
    return { ...file, location }
  })
  const entries = (name: (file: IsoFile) => Buffer) =>
    placed.map((file) => record(name(file), file.location, file.content.length, false))
  const terminator = Buffer.alloc(sector)
  terminator.write('\xffCD001\x01', 0, 'latin1')
  const content = placed.flatMap(({ content: bytes }) => [
    bytes,
    Buffer.alloc(sectorsOf(bytes.length) * sector - bytes.length),
  ])
  return Buffer.concat([
    Buffer.alloc(at.primary * sector),
    descriptor(label, ascii, false, next),
    descriptor(label, ucs2, true, next),
    terminator,
    pathTable(at.root, false),
    pathTable(at.root, true),
    pathTable(at.jolietRoot, false),
    pathTable(at.jolietRoot, true),
    directory(
      at.root,
      entries((file) => ascii(plainName(file.name))),
    ),
    directory(
      at.jolietRoot,
      entries((file) => ucs2(file.name)),
    ),
    ...content,
  ])
}
