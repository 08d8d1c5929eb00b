import { statSync } from 'node:fs'
import { type FileHandle, open, rename } from 'node:fs/promises'
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
async function putAside(file: string, keep: number): Promise<void> {
  for (let n = keep - 1; n >= 0; n -= 1) {
    const from = n === 0 ? file : `${file}.${n}`
    await rename(from, `${file}.${n + 1}`).catch((error: unknown) => absent(error, undefined))
  }
}

function absent<T>(error: unknown, value: T): T {
  if (errnoOf(error) !== 'ENOENT') throw error
  return value
}

/** A file that is kept open, until another one or none has its name. */
class KeptOpen {
  readonly #file: string
  #open: { readonly handle: FileHandle; readonly ino: bigint } | undefined

  constructor(file: string) {
    this.#file = file
  }

  /** Bytes of what has the name. It is asked on the spot, as a call to another thread costs ten times as much. */
  async size(): Promise<number> {
    const found = statSync(this.#file, { bigint: true, throwIfNoEntry: false })
    if (this.#open && found?.ino !== this.#open.ino) await this.close()
    return Number(found?.size ?? 0)
  }

  async append(text: string): Promise<void> {
    this.#open ??= await this.#opened()
    await this.#open.handle.appendFile(text)
  }

  async #opened() {
    const handle = await open(this.#file, 'a', 0o600)
    return { handle, ino: (await handle.stat({ bigint: true })).ino }
  }

  async close(): Promise<void> {
    const handle = this.#open?.handle
    this.#open = undefined
    await handle?.close()
  }
}

/**
 * Appends audit records to a file in the order they come, those that come meanwhile together. Before each batch it is
 * looked whose the name is, so the file may be moved away at any time; a large one is put aside. Never throws.
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
  const kept = new KeptOpen(file)
  const append = async (text: string) => {
    try {
      // What can't be put aside grows on: no record is lost for it.
      if ((await kept.size()) >= limits.maxBytes)
        await putAside(file, limits.keep)
          .then(() => kept.close())
          .catch((error: unknown) => failed(error, 0))
      await kept.append(text)
    } catch (error) {
      await kept.close().catch(() => {})
      throw error
    }
  }
  const write = async () => {
    while (waiting.length > 0 || dropped > 0) {
      const batch = waiting
      const lost = dropped
      waiting = []
      size = 0
      dropped = 0
      if (lost > 0) failed(new Error('records come faster than the disk takes them'), lost)
      await append(batch.join('')).catch((error: unknown) => failed(error, batch.length))
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
    /** The same, and lets go of the file; another record takes it up again. */
    async close(): Promise<void> {
      await writing
      await kept.close()
    },
  }
}
