import { appendFile } from 'node:fs/promises'
import { type AuditRecord, auditLine } from './audit.ts'

/** Characters of records that wait for the disk; more are dropped, and their number is told. */
const maxWaiting = 16 * 1024 * 1024

/**
 * Appends audit records to a file in the order they come, those that come meanwhile together. The file is opened for
 * each batch, so it may be moved away at any time. Never throws, never blocks.
 * @param failed is told what could not be written, and how many records that cost
 */
export function auditFile(file: string, failed: (error: unknown, records: number) => void) {
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
