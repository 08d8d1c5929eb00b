import { appendFile, rename, stat } from 'node:fs/promises'
import { errnoOf } from '../lib/errors.ts'
import { type AuditRecord, auditLine } from './audit.ts'

/** Characters of records that wait for the disk; more are dropped, and their number is told. */
const maxWaiting = 16 * 1024 * 1024

/** How large the file grows, in bytes, until it is put aside, and how many of those put aside are kept. */
export interface AuditLimits {
  readonly maxBytes: number
  readonly keep: number
}

const defaultLimits: AuditLimits = { maxBytes: 64 * 1024 * 1024, keep: 10 }

/** `audit.log` becomes `audit.log.1`, that `audit.log.2`; the oldest goes. */
async function rotate(file: string, { maxBytes, keep }: AuditLimits): Promise<void> {
  const size = await stat(file).then(
    (found) => found.size,
    (error: unknown) => absent(error, 0),
  )
  if (size < maxBytes) return
  for (let n = keep - 1; n >= 0; n -= 1) {
    const from = n === 0 ? file : `${file}.${n}`
    await rename(from, `${file}.${n + 1}`).catch((error: unknown) => absent(error, undefined))
  }
}

function absent<T>(error: unknown, value: T): T {
  if (errnoOf(error) !== 'ENOENT') throw error
  return value
}

/**
 * Appends audit records to a file in the order they come, those that come meanwhile together. The file is opened for
 * each batch, so it may be moved away at any time; a large one is put aside. Never throws, never blocks.
 * @param failed is told what could not be written, and how many records that cost
 */
export function auditFile(
  file: string,
  failed: (error: unknown, records: number) => void,
  limits = defaultLimits,
) {
  let waiting: string[] = []
  let size = 0
  let dropped = 0
  let writing: Promise<void> | undefined
  const write = async () => {
    while (waiting.length > 0 || dropped > 0) {
      const batch = waiting
      const lost = dropped
      waiting = []
      size = 0
      dropped = 0
      if (lost > 0) failed(new Error('records come faster than the disk takes them'), lost)
      // What can't be put aside grows on: no record is lost for it.
      await rotate(file, limits).catch((error: unknown) => failed(error, 0))
      await appendFile(file, batch.join(''), { mode: 0o600 }).catch((error: unknown) =>
        failed(error, batch.length),
      )
    }
    writing = undefined
  }
  return {
    record(record: AuditRecord): void {
      const line = auditLine(record)
      if (size + line.length > maxWaiting) dropped += 1
      else {
        waiting.push(line)
        size += line.length
      }
      writing ??= write()
    },
    /** Resolves when what was recorded so far is written, or is told to be lost. */
    async flush(): Promise<void> {
      await writing
    },
  }
}
