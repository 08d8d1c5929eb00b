/** What a process did to one file, and what it said, in the order of `strace -f -xx`. */
export type Op =
  | ({ readonly type: 'write'; readonly at: number; readonly data: Buffer; readonly durable: boolean } & Span)
  | ({ readonly type: 'flush' } & Span)
  | ({ readonly type: 'say'; readonly text: string } & Span)

/** Lines of the trace at which the system call began and had ended. */
interface Span {
  readonly begin: number
  readonly end: number
}

interface Call extends Span {
  readonly name: string
  readonly args: string
  readonly result: number
}

/** System calls with their begin and end: calls of threads interleave, as `<unfinished ...>` and `resumed`. */
function callsOf(trace: string): Call[] {
  const waiting = new Map<string, { name: string; args: string; begin: number }>()
  const calls: Call[] = []
  for (const [line, text] of trace.split('\n').entries()) {
    const whole = /^(\d+) +(\w+)\((.*)\) += (-?\d+)/.exec(text)
    if (whole) {
      const [, , name = '', args = '', result = ''] = whole
      calls.push({ name, args, result: Number(result), begin: line, end: line })
      continue
    }
    const [, pid = '', name = '', args = ''] = /^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$/.exec(text) ?? []
    if (name !== '') waiting.set(pid, { name, args, begin: line })
    const [, resumed = '', rest = '', result = ''] =
      /^(\d+) +<\.\.\. \w+ resumed>(.*)\) += (-?\d+)/.exec(text) ?? []
    const call = waiting.get(resumed)
    if (call) calls.push({ ...call, args: call.args + rest, result: Number(result), end: line })
  }
  return calls
}

const bytesOf = (hex: string) => Buffer.from(hex.replaceAll('\\x', ''), 'hex')

/** All quoted strings of a call's arguments, one after the other. */
function dataOf(args: string): Buffer {
  return Buffer.concat(
    [...args.matchAll(/"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?/g)].map(([, hex = '', cut]) => {
      if (cut) throw new Error('strace cut a string: its -s is too small')
      return bytesOf(hex)
    }),
  )
}

/** The operations on the file whose path ends in `name`, and what was written to standard output. */
export function operations(trace: string, name: string): Op[] {
  const durableOf = new Map<number, boolean>()
  const placeOf = new Map<number, number>()
  const ops: Op[] = []
  for (const { name: call, args, result, begin, end } of callsOf(trace)) {
    const fd = Number(/^\d+/.exec(args)?.[0] ?? -1)
    if (call === 'openat' && result >= 0 && dataOf(args).toString().endsWith(name))
      durableOf.set(result, /O_D?SYNC/.test(args))
    else if (fd === 1 && call === 'write')
      ops.push({ type: 'say', text: dataOf(args).toString(), begin, end })
    const durable = durableOf.get(fd)
    if (durable === undefined || result < 0) continue
    if (call === 'lseek') placeOf.set(fd, result)
    else if (call === 'fdatasync' || call === 'fsync') ops.push({ type: 'flush', begin, end })
    else if (call.startsWith('pwrite') || call.startsWith('write')) {
      const own = call.startsWith('pwrite') ? Number(/(\d+)$/.exec(args)?.[1]) : undefined
      const at = own ?? placeOf.get(fd) ?? 0
      const data = dataOf(args).subarray(0, result)
      if (data.length !== result)
        throw new Error(`${call} wrote ${result} bytes, the trace has ${data.length}`)
      if (own === undefined) placeOf.set(fd, at + result)
      ops.push({ type: 'write', at, data, durable, begin, end })
    }
  }
  return ops.sort((a, b) => a.end - b.end)
}

/**
 * What a disk may hold when power fails at a line of the trace: what was flushed by then, and of what was not, each
 * page or not, as `kept` decides.
 */
export function diskAt(ops: readonly Op[], line: number, kept: () => boolean): Buffer {
  let disk = Buffer.alloc(0)
  const apply = (at: number, data: Buffer) => {
    if (disk.length < at + data.length)
      disk = Buffer.concat([disk, Buffer.alloc(at + data.length - disk.length)])
    data.copy(disk, at)
  }
  let pending: (Op & { type: 'write' })[] = []
  for (const op of ops.filter(({ begin }) => begin < line)) {
    if (op.type === 'write') {
      if (op.durable && op.end < line) apply(op.at, op.data)
      else pending.push(op)
    } else if (op.type === 'flush' && op.end < line) {
      for (const write of pending) if (write.end < op.begin) apply(write.at, write.data)
      pending = pending.filter((write) => write.end >= op.begin)
    }
  }
  const page = 4096
  for (const { at, data } of pending)
    for (let i = 0; i < data.length; i += page) if (kept()) apply(at + i, data.subarray(i, i + page))
  return disk
}
